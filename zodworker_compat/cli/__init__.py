"""The `zodworker` command: one module per group of verbs, no logic of its own."""
