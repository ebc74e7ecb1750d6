"""A job in the transaction of its order: both are committed, or neither.

Run it: python examples/transactional_enqueue.py.
"""

import asyncio

import psycopg
from database import database

from zodworker_compat import ZodWorker

worker = ZodWorker(name="shop")  # on DATABASE_URL


@worker.task("sendReceipt", schema={"type": "object", "required": ["order"]})
async def send_receipt(payload: dict[str, int]) -> None:
    print(f"receipt for order {payload['order']}")


def order_sync(connection: psycopg.Connection, number: int) -> None:
    """Sync code, as in Django or Flask: `worker.sync`, on your connection."""
    with connection.transaction():
        connection.execute("insert into example_orders values (%s)", [number])
        worker.sync.enqueue_tx(connection, "sendReceipt", {"order": number})


async def order_async(number: int) -> None:
    """Async code: on a connection of the worker's, or `enqueue_tx` on yours."""
    async with worker.transaction() as tx:
        await tx.connection.execute("insert into example_orders values (%s)", [number])
        await tx.enqueue("sendReceipt", {"order": number})


async def order_that_fails(number: int) -> None:
    """The card is refused after the job was enqueued: no order, and no receipt."""
    async with worker.transaction() as tx:
        await tx.connection.execute("insert into example_orders values (%s)", [number])
        await tx.enqueue("sendReceipt", {"order": number})
        raise ValueError("card refused")


async def run_async() -> None:
    await order_async(2)
    try:
        await order_that_fails(3)
    except ValueError as error:
        print(f"order 3: {error}")
    await worker.run_once()


def main(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        worker.sync.migrate()
        connection.execute("create table example_orders (id int)")
        order_sync(connection, 1)
        worker.sync.close()
        asyncio.run(run_async())
        orders = connection.execute("select id from example_orders order by id").fetchall()
        print(f"orders: {[order for (order,) in orders]}")
        connection.execute("drop table example_orders")


if __name__ == "__main__":
    with database() as url:
        main(url)
