"""Enqueues jobs of all kinds while things break, and writes down what was committed."""

import asyncio
import random
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from harness.ledger import Writer

from zodworker_compat import JobRequest
from zodworker_compat.catalog import WorkerCatalog
from zodworker_compat.client.client_async import AsyncClient
from zodworker_compat.errors import DatabaseUnavailableError

TASKS = ("work", "thread", "parent", "lock", "hold")
QUEUES = 6
PAUSE = 0.02
"""Seconds between two transactions."""


class Load:
    """One enqueuer with a connection of its own, which it replaces when it is lost."""

    def __init__(self, url: str, book: Writer, rng: random.Random) -> None:
        self._url = url
        self._book = book
        self._rng = rng
        self._client = AsyncClient(
            WorkerCatalog.of(
                schema=dict.fromkeys(TASKS, True), tasks={name: {} for name in TASKS}, name="chaos"
            )
        )
        self._number = 0
        self._stopping = asyncio.Event()
        self._going_on = asyncio.Event()
        self._going_on.set()

    async def run(self) -> None:
        """Enqueue until stopped."""
        while not self._stopping.is_set():
            try:
                async with await self._connect() as connection:
                    while not self._stopping.is_set():
                        await self._going_on.wait()
                        await self._enqueue(connection)
                        await self._pause(PAUSE)
            except (psycopg.Error, DatabaseUnavailableError):
                await self._pause(0.1)  # whether it was committed is not known

    def stop(self) -> None:
        """Let `run` return."""
        self._stopping.set()

    async def add(self, task: str, *payloads: dict[str, Any], **options: Any) -> list[str]:
        """Enqueue some jobs at once, whatever it takes; return their tokens."""
        while True:
            requests = [self._request(task, payload, options) for payload in payloads]
            try:
                async with await self._connect() as connection:
                    return await self._commit(connection, requests)
            except psycopg.Error:
                await asyncio.sleep(0.1)

    def _connect(self) -> Coroutine[Any, Any, psycopg.AsyncConnection[Any]]:
        return psycopg.AsyncConnection.connect(self._url, autocommit=True, connect_timeout=5)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Enqueue nothing, so that no commit writes down what workers leave to be written later."""
        self._going_on.clear()
        try:
            yield
        finally:
            self._going_on.set()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _enqueue(self, connection: psycopg.AsyncConnection[Any]) -> None:
        requests = [self._any_request() for _ in range(self._rng.choice([1, 1, 1, 1, 3]))]
        if self._rng.random() < 0.1:
            await self._roll_back(connection, requests)
        else:
            await self._commit(connection, requests)

    async def _commit(
        self, connection: psycopg.AsyncConnection[Any], requests: list[JobRequest]
    ) -> list[str]:
        tokens = [request.payload["token"] for request in requests]
        self._book.write("intended", tokens=tokens)
        async with connection.transaction():
            await self._client.enqueue_many(requests, tx=connection)
        self._book.write("committed", tokens=tokens)
        return tokens

    async def _roll_back(
        self, connection: psycopg.AsyncConnection[Any], requests: list[JobRequest]
    ) -> None:
        tokens = [request.payload["token"] for request in requests]
        self._book.write("intended", tokens=tokens)
        async with connection.transaction():
            await self._client.enqueue_many(requests, tx=connection)
            raise psycopg.Rollback
        self._book.write("rolled_back", tokens=tokens)

    def _any_request(self) -> JobRequest:
        roll = self._rng.random()
        queue = f"q{self._rng.randrange(QUEUES)}" if self._rng.random() < 0.3 else None
        if roll < 0.8:
            seconds = self._rng.choice([0, 0, 0.01, 0.05, 0.2])
            return self._request("work", {"seconds": seconds}, {"queue_name": queue})
        if roll < 0.9:
            return self._request("thread", {"seconds": 0.05}, {"queue_name": queue})
        if roll < 0.95:
            return self._request("work", {"seconds": 1}, {})
        return self._request("parent", {"seconds": 0.02}, {})

    def _request(self, task: str, payload: dict[str, Any], options: dict[str, Any]) -> JobRequest:
        self._number += 1
        return JobRequest(task, {**payload, "token": f"{task}-{self._number}"}, options)
