"""The three workers of trigger.dev's v2 and the six tasks of the demo.

    deliverEvent → events.invokeDispatcher → startRun      (workerQueue)
        → performRunExecutionV2                            (executionWorker)
            → performTaskOperation                         (taskOperationWorker)
                → scheduleEmail                            (workerQueue)

All three share one queue and one process; each takes only the tasks it has handlers for. A
handler changes its business rows and enqueues the next task in one transaction. A job may run
twice, so every handler first asks the business table whether its step is still to be done.
"""

from collections.abc import Callable

from attrs import frozen

from zodworker_compat.demo.business import Business
from zodworker_compat.demo.mails import mail_for
from zodworker_compat.demo.outside import Outside
from zodworker_compat.job import Job
from zodworker_compat.triggerdev import (
    DeliverEvent,
    EventsInvokeDispatcher,
    PerformRunExecutionV2,
    PerformTaskOperation,
    ScheduleEmail,
    StartRun,
)
from zodworker_compat.worker import ZodWorker


@frozen
class Workers:
    """trigger.dev's three workers, with their handlers."""

    events: ZodWorker
    executions: ZodWorker
    operations: ZodWorker


def build_workers(
    make: Callable[[str], ZodWorker], business: Business, outside: Outside
) -> Workers:
    """Make the three workers and register their handlers.

    Args:
        make: returns the worker of a catalog's name.
        business: the business tables.
        outside: what the tasks call.
    """
    workers = Workers(make("workerQueue"), make("executionWorker"), make("taskOperationWorker"))
    add_event_tasks(workers, business)
    add_run_tasks(workers, business, outside)
    add_mail_task(workers, business, outside)
    return workers


def add_event_tasks(workers: Workers, business: Business) -> None:
    """From an event to a run."""
    worker = workers.events

    @worker.task("deliverEvent")
    async def deliver_event(payload: DeliverEvent) -> None:
        async with worker.transaction() as tx:
            event = await business.execute(tx.connection, "deliver_event", id=payload.id)
            if event is None:
                return
            (name,) = event
            await tx.enqueue(
                "events.invokeDispatcher",
                EventsInvokeDispatcher(id=f"on:{name}", eventRecordId=payload.id),
            )

    @worker.task("events.invokeDispatcher")
    async def invoke_dispatcher(payload: EventsInvokeDispatcher) -> None:
        async with worker.transaction() as tx:
            run = await business.execute(
                tx.connection, "create_run", event_id=payload.eventRecordId
            )
            if run is None:
                return
            (run_id,) = run
            await tx.enqueue("startRun", StartRun(id=run_id))

    @worker.task("startRun")
    async def start_run(payload: StartRun) -> None:
        async with worker.transaction() as tx:
            run = await business.execute(tx.connection, "start_run", id=payload.id)
            if run is None:
                return
            queue_name, environment = run
            await workers.executions.enqueue_tx(
                tx,
                "performRunExecutionV2",
                PerformRunExecutionV2(id=payload.id, reason="EXECUTE_JOB", isRetry=False),
                job_key=f"job_run:EXECUTE_JOB:{payload.id}",
                queue_name=queue_name,  # runs of one queue are executed one at a time
                max_attempts=1 if environment == "DEVELOPMENT" else None,
            )


def add_run_tasks(workers: Workers, business: Business, outside: Outside) -> None:
    """From a run to its task, and to the e-mail of it."""

    @workers.executions.task("performRunExecutionV2")
    async def perform_run_execution(payload: PerformRunExecutionV2, job: Job) -> None:
        async with workers.executions.transaction() as tx:
            run = await business.execute(tx.connection, "begin_execution", id=payload.id)
            if run is None:
                return
            (event_id,) = run
            await outside.call(event_id, job)  # if this raises, nothing of this attempt remains
            task = await business.execute(tx.connection, "end_execution", id=payload.id)
            assert task is not None  # noqa: S101 - it has just been inserted
            task_id, delay_until = task
            await workers.operations.enqueue_tx(
                tx,
                "performTaskOperation",
                PerformTaskOperation(id=task_id),
                job_key=f"operation:{task_id}",
                run_at=delay_until,
            )

    @workers.operations.task("performTaskOperation")
    async def perform_task_operation(payload: PerformTaskOperation, job: Job) -> None:
        async with workers.operations.transaction() as tx:
            event = await business.execute(tx.connection, "complete_task", id=payload.id)
            if event is None:
                return
            event_id, name, details = event
            await outside.call(event_id, job)
            if mail := mail_for(name, details):
                await business.execute(
                    tx.connection, "add_mail", id=payload.id, recipient=mail.to, kind=mail.email
                )
                await workers.events.enqueue_tx(tx, "scheduleEmail", mail, job_key=payload.id)


def add_mail_task(workers: Workers, business: Business, outside: Outside) -> None:
    """From the outbox to the mail server."""
    worker = workers.events

    @worker.task("scheduleEmail")
    async def schedule_email(mail: ScheduleEmail, job: Job) -> None:
        async with worker.transaction() as tx:
            sent = await business.execute(tx.connection, "send_mail", id=job.key, recipient=mail.to)
            if sent is None:
                return
            (event_id,) = sent
            await outside.call(event_id, job)
