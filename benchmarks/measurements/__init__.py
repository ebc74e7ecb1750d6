"""What is measured: each function takes the stage, a system and the sizes, and returns figures."""
