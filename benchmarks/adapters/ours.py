"""zodworker_compat, with the catalog `workerQueue` that comes with it."""

from typing import Any

from psycopg_pool import AsyncConnectionPool

from benchmarks.adapters.common import Handlers, Payload, main, say
from zodworker_compat import RunnerOptions, ZodWorker

SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "n": {"type": "integer"},
        "urgent": {"type": "boolean"},
    },
    "required": ["id", "n", "urgent"],
}


def new_worker(**options: Any) -> ZodWorker:
    """A worker that knows the tasks of the benchmark besides trigger.dev's."""
    return ZodWorker(
        name="benchmark", catalog="workerQueue", runner_options=RunnerOptions(**options)
    )


async def install(url: str, _settings: dict[str, Any]) -> None:
    worker = new_worker(connection_string=url)
    await worker.migrate()
    await worker.close()


async def work(url: str, settings: dict[str, Any], handlers: Handlers) -> None:
    worker = new_worker(connection_string=url, **settings.get("runner_options", {}))
    worker.task("scheduleEmail")(handlers.trivial)
    for task in ("trivial", "wait", "flaky", "probe"):
        worker.task(task, schema=SCHEMA)(getattr(handlers, task))
    await worker.initialize()
    say(ready=True)
    await worker.run_until_stopped()


class OurEnqueuer:
    """`enqueue` and `enqueue_many`, validated; `Job`s are returned."""

    shared = True

    def __init__(self, worker: ZodWorker) -> None:
        self._worker = worker

    async def one(self, task: str, given: Payload) -> None:
        await self._worker.enqueue(task, given)

    async def bulk(self, task: str, given: list[Payload]) -> None:
        await self._worker.enqueue_many([(task, one) for one in given])


async def connect(url: str, settings: dict[str, Any]) -> OurEnqueuer:
    pool = None
    if settings.get("pool") == "application":  # as a web application has one: without a check
        pool = AsyncConnectionPool(
            url, kwargs={"autocommit": True}, min_size=10, max_size=10, open=False
        )
        await pool.open(wait=True)
    worker = new_worker(connection_string=url, pool=pool)
    for task in ("trivial", "probe"):
        worker.task(task, schema=SCHEMA)(lambda _payload: None)
    return OurEnqueuer(worker)


if __name__ == "__main__":
    main(install, work, connect)
