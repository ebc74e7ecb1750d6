"""Enqueue, dequeue and transactions, async and sync: what needs no runner."""
