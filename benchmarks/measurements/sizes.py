"""How much work a measurement does."""

from attrs import frozen


@frozen
class Sizes:
    """Full ones for figures, small ones to prove that everything runs."""

    drain_seconds: float = 0.8
    """How long a drain should take, by the system's known speed."""
    enqueue_one: int = 400
    enqueue_concurrent: int = 1_000
    enqueue_bulk: int = 20_000
    probes: int = 80
    idle_seconds: float = 3.0
    settle_seconds: float = 1.0
    starts: int = 3
    backlog: int = 1_000_000
    burst: int = 10_000
    """How many jobs of a backlog are measured."""
    stuck: int = 100_000
    queues: int = 10_000


FULL = Sizes()
QUICK = Sizes(
    drain_seconds=0.05,
    enqueue_one=20,
    enqueue_concurrent=50,
    enqueue_bulk=200,
    probes=5,
    idle_seconds=0.5,
    settle_seconds=0.2,
    starts=1,
    backlog=10_000,
    burst=500,
    stuck=1_000,
    queues=100,
)
