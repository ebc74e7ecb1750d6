"""Why a job does not run now, and what in a queue needs a look. Pure: from what was read, to words."""

import shlex
from datetime import timedelta
from typing import Final

from attrs import frozen

from zodworker_compat.client.wording import duration, plural
from zodworker_compat.database.look import MOST_AHEAD
from zodworker_compat.database.status import JobReport, QueueCounts, Status, TaskCounts

NODE_SWEEP: Final = timedelta(hours=4)
"""After which every graphile-worker, and ours, frees a lock whose worker nobody knows."""
A_MOMENT: Final = timedelta(seconds=10)
"""A queue that is locked without a running job for longer was left behind: the lock is freed with
the job, or in a moment."""
LONG_WAIT: Final = timedelta(minutes=5)
"""A ready job that waits for longer is worth a look."""
LONG_RUN: Final = timedelta(hours=1)
"""A job that runs for longer is worth a look."""


def reasons(report: JobReport) -> list[str]:
    """Return why a job does not run now, or by whom it is run, in sentences; never empty."""
    job, read_at = report.listed.job, report.listed.read_at
    if job.locked_at is not None:
        lock = f"locked by {job.locked_by or '(nobody)'} for {duration(read_at - job.locked_at)}"
        attempt = f"attempt {job.attempts} of {job.max_attempts}"
        return [f"It is running: {lock}, {attempt}.", *_about_holder(report)]
    if report.listed.state == "failed":
        return [f"It is out of attempts: {job.attempts} of {job.max_attempts} are used up."]
    found = []
    if job.run_at > read_at:
        tried = f"It was tried {plural(job.attempts, 'time')}, and" if job.attempts else "It"
        found.append(f"{tried} is not due yet: it may run in {duration(job.run_at - read_at)}.")
    found += _about_queue(report)
    found += _about_workers(report)
    found += [f"Its flag {flag} is paused." for flag in report.paused_flags]
    if report.ahead:
        more = " at least" if report.ahead >= MOST_AHEAD else ""
        found.append(f"Workers take{more} {plural(report.ahead, 'ready job')} before it.")
    return found or ["Nothing keeps it: the next worker that handles its task takes it."]


def _about_queue(report: JobReport) -> list[str]:
    listed = report.listed
    if listed.queue_locked_at is None:
        return []
    running = " and ".join(f"job {number}" for number in report.running_in_queue)
    state = f"{running} of it is running" if running else "no job of it is running: left behind"
    holder = listed.queue_locked_by or "(nobody)"
    age = duration(listed.read_at - listed.queue_locked_at)
    return [
        f"Its queue {listed.job.queue_name} is locked by {holder} for {age}; {state}.",
        *_about_holder(report),
    ]


def _about_holder(report: JobReport) -> list[str]:
    holder = report.holder
    if holder is None or holder.since is None:
        return []
    name, beat = holder.locked_by, holder.heartbeat
    if beat is None:
        left = duration(NODE_SWEEP - (report.listed.read_at - holder.since))
        unlock = command("unlock", "--force", name)
        gone = f"If it is gone, any worker's sweep frees the lock in {left}, or you do: {unlock}"
        return [f"{name} has no heartbeat here: a Node worker, or one that is gone. {gone}"]
    silence = duration(beat.silent_for)
    if beat.is_dead:
        freed = f"Any living Python worker frees what it held, or you do: {command('unlock', name)}"
        return [f"{name} is dead: its last heartbeat was {silence} ago. {freed}"]
    process = f"{beat.name} on {beat.host}, process {beat.pid}"
    return [f"{name} is alive: {process}, last heartbeat {silence} ago."]


def _about_workers(report: JobReport) -> list[str]:
    if report.handled_by:
        return []
    if not report.has_heartbeats:
        return ["No Python worker is alive here; Node's would not show."]
    task = report.listed.job.task_identifier
    return [f"No living Python worker handles {task}; whether one of Node's does is not known."]


def command(*words: str) -> str:
    """Return a `zodworker` command as one would type it; names are quoted for the shell."""
    return shlex.join(("zodworker", *words))


@frozen
class Finding:
    """Something in a queue that needs a look."""

    problem: str
    command: str
    """What to run to see more, or to act."""


def findings(status: Status) -> list[Finding]:
    """Return what needs a look, the worst first; empty if all is well."""
    return [
        *_stuck_queues(status),
        *_holders(status),
        *_unhandled(status),
        *_backlog(status),
        *_failures(status),
    ]


def _stuck_queues(status: Status) -> list[Finding]:
    dead = {one.locked_by for one in status.workers if one.state == "dead"}
    return [
        Finding(
            f"Queue {one.queue_name} has been locked by {one.locked_by or '(nobody)'} for "
            f"{duration(since)}, and none of its jobs is running: {plural(one.ready, 'ready job')} "
            f"{'waits' if one.ready == 1 else 'wait'} behind the lock.",
            command("unlock", one.locked_by)
            if one.locked_by in dead
            else command("queues", "--queue", one.queue_name),
        )
        for one in status.queues
        if (since := stuck_for(status, one)) is not None
    ]


def stuck_for(status: Status, one: QueueCounts) -> timedelta | None:
    """Return for how long a queue has been locked in vain, with jobs behind the lock; None if it is not."""
    if one.locked_at is None or not one.is_stuck or not one.ready:
        return None
    if status.sampled < 1 and not any(  # its running job may not be in the sample
        holder.locked_by == one.locked_by and holder.state == "dead" for holder in status.workers
    ):
        return None
    since = status.read_at - one.locked_at
    return since if since > A_MOMENT else None


def _holders(status: Status) -> list[Finding]:
    told = {one.locked_by for one in status.queues if stuck_for(status, one) is not None}
    found = []
    for one in status.workers:
        if one.since is None or (one.locked_by in told and not one.jobs):
            continue
        held = " and ".join(
            plural(count, noun)
            for count, noun in ((one.jobs, "job"), (one.queues, "queue"))
            if count
        )
        age = status.read_at - one.since
        if one.heartbeat is not None and one.heartbeat.is_dead:
            silence = duration(one.heartbeat.silent_for)
            about = f"is dead (silent for {silence}) and holds {held}."
            act = command("unlock", one.locked_by)
        elif age > LONG_RUN:
            what = "has no heartbeat" if one.heartbeat is None else "is alive"
            about = f"{what} and holds {held}, the oldest for {duration(age)}."
            act = command("jobs", "--locked-by", one.locked_by, "--sort", "locked")
        else:
            continue
        found.append(Finding(f"Worker {one.locked_by} {about}", act))
    return found


def _unhandled(status: Status) -> list[Finding]:
    """Return tasks that wait, and no Python worker handles; nothing where none ever had a heartbeat."""
    if not status.has_heartbeats:
        return []
    return [
        Finding(
            f"No living Python worker handles {one.identifier}: {_waiting(one)}.",
            command("workers"),
        )
        for one in status.tasks
        if _waits_long(one) and one.identifier not in _handled(status)
    ]


def _handled(status: Status) -> set[str]:
    return {
        task
        for one in status.workers
        if one.state == "alive" and one.heartbeat is not None
        for task in one.heartbeat.tasks
    }


def _backlog(status: Status) -> list[Finding]:
    """Return the task that waits longest of those that have a worker."""
    ours = _handled(status) if status.has_heartbeats else {one.identifier for one in status.tasks}
    late = [one for one in status.tasks if _waits_long(one) and one.identifier in ours]
    if not late:
        return []
    oldest = max(late, key=lambda one: one.oldest_ready or timedelta(0))
    return [
        Finding(
            f"Jobs wait too long: {oldest.identifier} has {_waiting(oldest)}.",
            command("jobs", "--state", "ready", "--task", oldest.identifier, "--sort", "next"),
        )
    ]


def _waits_long(one: TaskCounts) -> bool:
    return one.oldest_ready is not None and one.oldest_ready > LONG_WAIT


def _waiting(one: TaskCounts) -> str:
    oldest = duration(one.oldest_ready or timedelta(0))
    return f"{plural(one.ready, 'ready job')}, the oldest due for {oldest}"


def _failures(status: Status) -> list[Finding]:
    failed = status.jobs.failed
    if not failed:
        return []
    worst = max(status.tasks, key=lambda one: one.failed)
    most = f", {worst.failed:,} of them {worst.identifier}" if failed > 1 else ""
    return [
        Finding(
            f"{plural(failed, 'job')} {'is' if failed == 1 else 'are'} out of attempts{most}.",
            command("jobs", "--state", "failed", "--sort", "newest"),
        )
    ]
