"""Drain: from the commit that brings the jobs to the commit that settles the last of them.

The worker is up and has run some jobs before, so neither its start nor a cold interpreter counts.
One transaction fills and analyses the empty table and notifies; the clock runs from its commit
until a look at the table, 1 ms apart, shows that no job is left. The same for all, with a favour
for a worker that hears of the jobs late (pgqueuer on psycopg: up to a second): its clock starts
with its first handler.
"""

from functools import partial

from attrs import frozen

from benchmarks.measurements.sizes import Sizes
from benchmarks.process import wait_until
from benchmarks.stage import Stage, now
from benchmarks.systems import System
from benchmarks.tables import EMAIL, STUCK, TRIVIAL

LATE = 0.1
"""Seconds; a notification takes milliseconds."""


@frozen
class Load:
    """What the jobs are."""

    task: str = "trivial"
    payload: str = TRIVIAL
    share: float = 1.0
    """How many jobs, as a share of what the system drains in the time of a measurement."""
    serial: bool = False
    """Spread over named queues."""
    stuck: bool = False
    left: str | None = None
    """See `Stage.is_done`."""


def drain(
    stage: Stage, system: System, sizes: Sizes, *, load: Load = Load(), processes: int = 1
) -> dict[str, float]:
    """Return jobs per second, and the CPU time of worker and PostgreSQL in µs per job."""
    jobs = max(100, int(system.speed * sizes.drain_seconds * load.share))

    def fill() -> None:
        if load.stuck:
            stage.connection(system).execute(STUCK.replace(":jobs", str(sizes.stuck)))
        queues = sizes.queues if load.serial else 0
        stage.fill(system, jobs, task=load.task, payload=load.payload, queues=queues)

    with stage.workers(system, processes) as workers:
        before = workers.count
        cpu = workers.cpu()
        begin = stage.commit_at_once(system, fill)
        workers.wait(before + 1)
        first = now()
        workers.wait(before + jobs)
        wait_until(lambda: stage.is_done(system, load.left), f"{system.name} had settled all jobs")
        seconds = now() - (first if first - begin.at > LATE else begin.at)
        return {
            "jobs/s": jobs / seconds,
            "worker µs/job": (workers.cpu() - cpu) / jobs * 1e6,
            "PostgreSQL µs/job": stage.postgres_cpu_since(begin) / jobs * 1e6,
        }


def backlog(stage: Stage, system: System, sizes: Sizes, *, jobs: int) -> dict[str, float]:
    """Return jobs per second over the first handlers of a backlog that was committed at once."""
    jobs = min(jobs, sizes.backlog)
    with stage.workers(system) as workers:
        before = workers.count
        begin = stage.commit_at_once(  # 400 MB, which would else be written meanwhile
            system, lambda: stage.fill(system, jobs), checkpoint=True
        )
        workers.wait(before + sizes.burst)
        return {"jobs/s": sizes.burst / (now() - begin.at)}


EMAILS = Load("scheduleEmail", EMAIL)
WAITING = Load("wait", share=0.5)
FLAKY = Load("flaky", share=0.25, left="job.attempts = 0 or job.locked_at is not null")
STUCK_QUEUES = Load(stuck=True, share=0.5, left="job.job_queue_id is null")
SERIAL_QUEUES = Load(serial=True)

drain_emails = partial(drain, load=EMAILS)
drain_waiting = partial(drain, load=WAITING)
drain_flaky = partial(drain, load=FLAKY)
drain_beside_stuck = partial(drain, load=STUCK_QUEUES)
drain_queues = partial(drain, load=SERIAL_QUEUES)
