"""A worker with two tasks. Run it: python examples/quickstart.py."""

import asyncio
from typing import Any

from attrs import frozen
from database import database

from zodworker_compat import Job, PayloadValidationError, ZodWorker

worker = ZodWorker(name="quickstart")  # on DATABASE_URL


@frozen
class Welcome:
    """What the handler gets; the schema below has been checked by then."""

    email: str
    name: str = "friend"


WELCOME = {
    "type": "object",
    "properties": {"email": {"type": "string", "pattern": "@"}, "name": {"type": "string"}},
    "required": ["email"],
}


@worker.task("sendWelcome", schema=WELCOME, max_attempts=5)
async def send_welcome(payload: Welcome, job: Job) -> None:
    print(f"Dear {payload.name}: sent to {payload.email}, attempt {job.attempts}")


@worker.task("countWords", schema={"type": "string"}, queue_name="words")  # one at a time
def count_words(payload: Any) -> None:  # a plain function runs in a thread
    print(f"{len(payload.split())} words")


async def main() -> None:
    await worker.migrate()  # makes graphile-worker's tables, or takes those that are there
    await worker.enqueue("sendWelcome", {"email": "ada@example.com", "name": "Ada"})
    await worker.enqueue("countWords", "a job queue in the tables you already have")
    try:
        await worker.enqueue("sendWelcome", {"name": "Nobody"})
    except PayloadValidationError as error:
        print(error)
    await worker.run_once()  # a service would `await worker.run_until_stopped()`


if __name__ == "__main__":
    with database():
        asyncio.run(main())
