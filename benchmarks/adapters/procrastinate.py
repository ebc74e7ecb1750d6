"""procrastinate on psycopg; jobs that succeed are deleted, as everywhere else."""

from typing import Any

import procrastinate

from benchmarks.adapters.common import Handlers, Payload, main, say


def new_app(url: str) -> procrastinate.App:
    return procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))


async def install(url: str, _settings: dict[str, Any]) -> None:
    async with new_app(url).open_async() as app:
        await app.schema_manager.apply_schema_async()


async def work(url: str, settings: dict[str, Any], handlers: Handlers) -> None:
    async with new_app(url).open_async() as app:

        @app.task(name="trivial")
        async def trivial(**payload: Any) -> None:
            await handlers.trivial(payload)

        @app.task(name="wait")
        async def wait(**payload: Any) -> None:
            await handlers.wait(payload)

        @app.task(name="probe")
        async def probe(**payload: Any) -> None:
            await handlers.probe(payload)

        say(ready=True)
        await app.run_worker_async(delete_jobs="successful", **settings)


class ProcrastinateEnqueuer:
    """`defer_async` and `batch_defer_async`."""

    shared = True

    def __init__(self, app: procrastinate.App) -> None:
        self._app = app

    async def one(self, task: str, given: Payload) -> None:
        await self._app.configure_task(task, allow_unknown=True).defer_async(**given)

    async def bulk(self, task: str, given: list[Payload]) -> None:
        await self._app.configure_task(task, allow_unknown=True).batch_defer_async(*given)


async def connect(url: str, _settings: dict[str, Any]) -> ProcrastinateEnqueuer:
    app = new_app(url)
    await app.open_async()
    return ProcrastinateEnqueuer(app)


if __name__ == "__main__":
    main(install, work, connect)
