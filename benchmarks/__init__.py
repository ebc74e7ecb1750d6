"""Ours, the original and the other Python queues, side by side on one PostgreSQL."""
