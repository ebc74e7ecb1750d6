"""pgqueuer on asyncpg or psycopg, in uvloop as its command runs it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import psycopg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, PsycopgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.adapters.common import Handlers, Payload, main, say


async def open_driver(url: str, settings: dict[str, Any]) -> AsyncpgDriver | PsycopgDriver:
    if settings["driver"] == "asyncpg":
        return AsyncpgDriver(await asyncpg.connect(url))
    return PsycopgDriver(await psycopg.AsyncConnection.connect(url, autocommit=True))


async def install(url: str, settings: dict[str, Any]) -> None:
    await Queries(await open_driver(url, settings)).install()


async def work(url: str, settings: dict[str, Any], handlers: Handlers) -> None:
    queuer = PgQueuer(await open_driver(url, settings))

    def register(task: str, handler: Callable[[Payload], Awaitable[None]]) -> None:
        @queuer.entrypoint(task)
        async def run(job: Job) -> None:
            await handler(json.loads(job.payload or b""))

    for task in ("trivial", "wait", "probe"):
        register(task, getattr(handlers, task))
    say(ready=True)
    await queuer.run(**settings.get("run", {}))


class PgqueuerEnqueuer:
    """`enqueue`, with one payload or with lists, on one connection."""

    shared = False

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def one(self, task: str, given: Payload) -> None:
        await self._queries.enqueue(task, json.dumps(given).encode())

    async def bulk(self, task: str, given: list[Payload]) -> None:
        payloads: list[bytes | None] = [json.dumps(one).encode() for one in given]
        await self._queries.enqueue([task] * len(given), payloads, [0] * len(given))


async def connect(url: str, settings: dict[str, Any]) -> PgqueuerEnqueuer:
    return PgqueuerEnqueuer(Queries(await open_driver(url, settings)))


if __name__ == "__main__":
    main(install, work, connect, run=uvloop.run)
