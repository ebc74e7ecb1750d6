"""A Python worker whose handlers write what they do into the table `ledger`, as those of fleet.js.

`FLEET` holds, as JSON: `tasks`, a list of identifiers, and what else `ZodWorker` takes.
"""

import asyncio
import json
import os

import psycopg

from zodworker_compat import ZodWorker

FLEET = json.loads(os.environ["FLEET"])
CHECKED = {
    "type": "object",
    "properties": {"email": {"type": "string", "minLength": 3}},
    "required": ["email"],
}

worker = ZodWorker(name="fleet", crontab=FLEET.get("crontab"))


async def handle(payload, job, helpers) -> None:
    async def query(text, *parameters):
        cursor = await connection.execute(text, parameters)
        return cursor.rowcount and cursor.description and await cursor.fetchone()

    async with await psycopg.AsyncConnection.connect(FLEET["url"], autocommit=True) as connection:
        [row] = await query(
            "insert into ledger (side, identifier, job_id, attempt, queue, payload)"
            " values ('python', %s, %s, %s, %s, %s) returning id",
            job.task_identifier, job.id, job.attempts, payload.get("queue"), json.dumps(payload),
        )  # fmt: skip
        await asyncio.sleep(payload.get("seconds", 0))
        while "gate" in payload and not await query(  # noqa: ASYNC110 - another process opens it
            "select 1 from gates where name = %s", payload["gate"]
        ):
            await asyncio.sleep(0.02)
        fails = job.attempts <= payload.get("failures", 0)
        await query(
            "update ledger set ended = clock_timestamp(), ok = %s where id = %s", not fails, row
        )
    if fails:
        raise RuntimeError("as planned")


for identifier in FLEET["tasks"]:
    worker.task(identifier, schema=CHECKED if identifier == "checked" else True)(handle)
