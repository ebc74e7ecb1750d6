"""Named queues: one job at a time in every worker, beside other fetchers, and no waiting between."""

import asyncio
import secrets
from contextlib import asynccontextmanager
from itertools import chain
from time import monotonic

import psycopg
import pytest
from psycopg.rows import dict_row

from zodworker_compat.database.queue import claim, complete, fail

SCHEMA = "graphile_worker"


async def nothing(payload) -> None: ...


async def claimed(connection, pool_id="pool-test", limit=10, only=None):
    cursor = await connection.execute(
        "select id from graphile_worker._private_tasks"
        " where %(only)s::text is null or identifier = %(only)s",
        {"only": only},
    )
    ids = [row["id"] for row in await cursor.fetchall()]
    return await claim(connection, SCHEMA, pool_id, ids, limit)


@pytest.fixture
async def other(database):
    """A connection in a transaction of its own: another fetcher, stopped in the middle."""
    async with await psycopg.AsyncConnection.connect(database, row_factory=dict_row) as connection:
        yield connection
        await connection.rollback()


async def test_a_batch_holds_one_job_of_each_queue_best_first(jobs) -> None:
    for queue, priority in [("a", 5), ("a", 1), ("b", 3), (None, 2), (None, 4), ("a", 1)]:
        await jobs.add(queue_name=queue, priority=priority)
    batch = await claimed(jobs.connection)
    assert [(job.queue_name, job.priority, job.id) for job in batch.jobs] == [
        ("a", 1, 2),
        (None, 2, 4),
        ("b", 3, 3),
        (None, 4, 5),
    ]
    assert (await claimed(jobs.connection)).jobs == []


async def test_a_full_batch_is_the_best_of_both_kinds(jobs) -> None:
    for queue, priority in [(None, 1), ("a", 2), (None, 3), ("b", 4), (None, 5)]:
        await jobs.add(queue_name=queue, priority=priority)
    batch = await claimed(jobs.connection, limit=3)
    assert [job.priority for job in batch.jobs] == [1, 2, 3]
    assert await jobs.locked() == 4  # three jobs and the queue "a"


async def test_a_deep_queue_does_not_hide_the_queues_behind_it(jobs) -> None:
    await jobs.add_many(300, "deep")
    await jobs.add(queue_name="behind", priority=1)
    first = await claimed(jobs.connection, limit=5)
    second = await claimed(jobs.connection, limit=5)
    assert [job.queue_name for job in first.jobs] == ["deep"]
    assert first.more
    assert [job.queue_name for job in second.jobs] == ["behind"]


async def test_a_queue_that_another_fetcher_is_looking_at_is_skipped_and_asked_for_again(
    jobs, other
) -> None:
    await jobs.add(queue_name="a")
    # as Node does for the length of its fetch: every available queue
    await other.execute("select 1 from graphile_worker._private_job_queues for update skip locked")
    batch = await claimed(jobs.connection)
    assert batch.jobs == []
    assert batch.more
    await other.rollback()
    assert len((await claimed(jobs.connection)).jobs) == 1


async def test_a_locked_queue_or_job_is_not_taken(jobs, other) -> None:
    job_id = await jobs.add(queue_name="a")
    await other.execute(
        "select 1 from graphile_worker._private_jobs where id = %s for update", (job_id,)
    )
    assert (await claimed(jobs.connection)).jobs == []
    assert await jobs.locked() == 0


@pytest.fixture
async def held_up_claim(database, jobs, other, eventually):
    """`async with held_up_claim() as late`: a claim that has its snapshot and no row lock yet.

    A row security policy that waits for an advisory lock holds it up: the statement is ours.
    At the end of the block it goes on; await it for its batch.
    """
    role = f"slow_{secrets.token_hex(6)}"
    for text in (
        """create function hold_up() returns boolean language plpgsql as
        $$ begin perform pg_advisory_xact_lock_shared(1); return true; end $$""",
        "create policy hold_up on graphile_worker._private_job_queues using (hold_up())",
        "create policy all_rows on graphile_worker._private_jobs using (true)",
        "create policy all_rows on graphile_worker._private_tasks using (true)",
        f"create role {role}",
        f"grant usage on schema graphile_worker to {role}",
        f"grant all on all tables in schema graphile_worker to {role}",
    ):
        await jobs.sql(text)
    async with await psycopg.AsyncConnection.connect(
        database, autocommit=True, row_factory=dict_row
    ) as slow:
        await slow.execute(f"set role {role}")

        @asynccontextmanager
        async def hold():
            await other.execute("select pg_advisory_xact_lock(1)")
            late = asyncio.create_task(claimed(slow, "pool-late", only="task"))

            async def held_up() -> bool:
                assert not late.done(), late.exception()
                return bool(await jobs.sql("select 1 from pg_locks where not granted"))

            await eventually(held_up)
            yield late
            await other.commit()

        yield hold
    await jobs.sql(f"drop owned by {role}")
    await jobs.sql(f"drop role {role}")


@pytest.mark.parametrize("ended", [False, True])
async def test_a_queue_taken_after_our_snapshot_is_ours_only_if_it_is_free_again(
    held_up_claim, jobs, ended
) -> None:
    """The other claim takes another task's job of the queue, as Node beside us does."""
    await jobs.add("theirs", queue_name="a", priority=-1)
    await jobs.add(queue_name="a")
    async with held_up_claim() as late:
        (job,) = (await claimed(jobs.connection, "pool-first", only="theirs")).jobs
        if ended:
            assert await complete(jobs.connection, SCHEMA, "pool-first", [job.id]) == []
    assert len((await late).jobs) == ended
    holders = await jobs.sql("select locked_by from graphile_worker._private_job_queues")
    assert holders == [{"locked_by": "pool-late" if ended else "pool-first"}]


@pytest.mark.parametrize("end", ["completed", "failed", "failed for good"])
async def test_a_job_that_ended_after_our_snapshot_is_not_taken_again(
    held_up_claim, jobs, end
) -> None:
    await jobs.add(queue_name="a")
    async with held_up_claim() as late:
        if end == "failed for good":
            await jobs.sql("select graphile_worker.permanently_fail_jobs(array[1])")
        else:
            (job,) = (await claimed(jobs.connection, "pool-first")).jobs
            settled = [jobs.connection, SCHEMA, "pool-first", [job.id]]
            if end == "completed":
                await complete(*settled)
            else:
                await fail(*settled, [job.locked_at], ["boom"], [None], [False])
    assert (await late).jobs == []
    assert await jobs.locked() == 0


async def test_a_queue_that_is_being_taken_is_skipped_without_waiting(jobs, other) -> None:
    await jobs.add("theirs", queue_name="a", priority=-1)
    await jobs.add(queue_name="a")
    assert len((await claimed(other, "pool-first", only="theirs")).jobs) == 1  # not committed
    async with asyncio.timeout(60):
        batch = await claimed(jobs.connection, "pool-second", only="task")
    assert (batch.jobs, batch.more) == ([], True)
    await other.commit()
    assert (await claimed(jobs.connection, "pool-second", only="task")).jobs == []


async def test_many_claims_at_once_never_share_a_queue(database, jobs) -> None:
    await jobs.sql(
        "select count(*) from graphile_worker.add_jobs(array(select ('task', '{}', 'q' || n %% 20,"
        " null, null, null, null, null)::graphile_worker.job_spec from generate_series(1, 400) n))"
    )

    async def fetcher(number: int) -> list[str]:
        taken = []
        async with await psycopg.AsyncConnection.connect(
            database, autocommit=True, row_factory=dict_row
        ) as connection:
            for _ in range(20):
                batch = await claimed(connection, f"pool-{number}", 3)
                taken += [job.queue_name for job in batch.jobs]
        return taken

    taken = list(chain.from_iterable(await asyncio.gather(*map(fetcher, range(6)))))
    assert len(taken) == len(set(taken)) == 20
    wrong = await jobs.sql(
        "select 1 from graphile_worker._private_jobs j"
        " join graphile_worker._private_job_queues q on q.id = j.job_queue_id"
        " where j.locked_by is not null and j.locked_by is distinct from q.locked_by"
    )
    assert wrong == []


async def test_a_queue_is_serial_and_in_order_across_runners(jobs, make_runner) -> None:
    running, seen = 0, []

    async def handler(payload) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001)
        running -= 1
        seen.append(payload["n"])

    await jobs.add_many(60, "serial")
    runners = [make_runner(handler, poll_interval=0.02) for _ in range(3)]
    await asyncio.gather(*(runner.run_once() for runner in runners))
    assert seen == list(range(1, 61))
    assert await jobs.empty()
    assert await jobs.locked() == 0


async def test_the_jobs_of_a_queue_follow_each_other_without_polls(
    jobs, make_runner, eventually
) -> None:
    await jobs.add_many(50, "serial")
    runner = make_runner(nothing, poll_interval=600)
    start = monotonic()
    await runner.start()
    await eventually(jobs.empty)
    assert monotonic() - start < 10


async def test_a_failed_job_does_not_block_its_queue(jobs, make_runner) -> None:
    seen = []

    def handler(payload) -> None:
        seen.append(payload["n"])
        if payload["n"] == 1:
            raise ValueError

    await jobs.add_many(3, "serial")
    await make_runner(handler).run_once()
    assert seen == [1, 2, 3]
    assert await jobs.locked() == 0


@pytest.mark.parametrize("prepared", [True, False])
async def test_an_open_transaction_of_the_callers_holds_up_only_its_own_job(
    database, jobs, make_runner, eventually, prepared
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def handler(payload) -> None:
        if "held" in payload:
            started.set()
            await go_on.wait()
        if "fail" in payload:
            raise RuntimeError

    held = await jobs.add(payload={"held": 1}, job_key="held")
    runner = make_runner(handler, options={"prepared_statements": prepared})
    await runner.start()
    await asyncio.wait_for(started.wait(), 10)
    async with await psycopg.AsyncConnection.connect(database) as caller:
        await caller.execute("select graphile_worker.remove_job('held')")  # as dequeue(tx=...)
        go_on.set()
        for number in range(50):
            await jobs.add(payload={"fail": 1} if number % 10 == 0 else {})

        async def only_the_held_one_is_locked() -> bool:
            return [row["id"] for row in await jobs.all() if row["locked_by"]] == [held]

        async def the_others_are_settled() -> bool:
            return await jobs.count() == 6 and await only_the_held_one_is_locked()

        await eventually(the_others_are_settled)
        await caller.commit()

    async def only_failures_are_left() -> bool:
        return await jobs.count() == 5 and await jobs.locked() == 0

    await eventually(only_failures_are_left)


async def test_a_second_try_to_fail_does_not_touch_a_later_claim(jobs) -> None:
    """The first try committed, its answer was lost, and the same pool has claimed the job again."""
    await jobs.add()
    [first] = (await claimed(jobs.connection)).jobs
    result = ([first.id], [first.locked_at], ["boom"], [0.0], [False])
    assert await fail(jobs.connection, SCHEMA, "pool-test", *result) == []
    [second] = (await claimed(jobs.connection)).jobs
    assert second.id == first.id
    assert await fail(jobs.connection, SCHEMA, "pool-test", *result) == [(first.id, False)]
    assert (await jobs.row(first.id))["locked_at"] == second.locked_at
