"""`zodworker retry`, `reschedule`, `fail`, `complete`, `remove`, `purge` and `unlock`."""

import json
import signal

import psycopg
import pytest
from psycopg.rows import dict_row

from zodworker_compat.cli.act import complete, fail, purge, remove, reschedule, retry

ACTS = [retry, reschedule, fail, complete, remove]
CHANGE = {"reschedule": ["--priority", "5"]}


class Rows:
    """The jobs table."""

    def __init__(self, url):
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def run(self, text, *parameters):
        cursor = self.connection.execute(text, parameters)
        return cursor.fetchall() if cursor.description else []

    def add(self, count=1, task="mail", **columns):
        """Add jobs and set their columns; returns their ids as strings."""
        ids = [
            row["id"]
            for row in self.run(
                "select (graphile_worker.add_job(%s)).id from generate_series(1, %s)", task, count
            )
        ]
        for name, value in columns.items():
            self.run(
                f"update graphile_worker._private_jobs set {name} = {value} where id = any (%s)",
                ids,
            )
        return [str(number) for number in ids]

    @property
    def all(self):
        return self.run("select * from graphile_worker._private_jobs order by id")

    @property
    def ids(self):
        return [str(row["id"]) for row in self.all]


@pytest.fixture
def rows(database):
    rows = Rows(database)
    yield rows
    rows.connection.close()


FAILED = {"attempts": 25, "last_error": "'E: refused'", "run_at": "now() - interval '2 days'"}
HELD = {"locked_by": "'w1'", "locked_at": "now() - interval '2 minutes'"}


def test_retry_chooses_failed_jobs(command, rows):
    rows.add(2, **FAILED)
    rows.add(1, run_at="now() + interval '1 day'")

    done = command("retry", "--task", "mail", "--yes")

    assert (done.status, done.output, done.errors) == (0, "Retried 2 jobs.\n", "")
    assert [(row["attempts"], row["last_error"]) for row in rows.all] == [
        (0, "E: refused"),
        (0, "E: refused"),
        (0, None),
    ]
    assert json.loads(command("status", "--json").output)["jobs"]["ready"] == 2


def test_retry_of_an_id_runs_it_whatever_its_state(command, rows):
    [number] = rows.add(run_at="now() + interval '1 day'", attempts=3)

    assert command("retry", number).output == "Retried 1 job.\n"

    assert json.loads(command("status", "--json").output)["jobs"]["ready"] == 1


def test_reschedule(command, rows):
    [number] = rows.add()

    done = command(
        "reschedule", number, "--run-at", "2999-01-01T00:00:00Z", "--priority", "-3",
        "--attempts", "2", "--max-attempts", "7",
    )  # fmt: skip

    [row] = rows.all
    assert done.output == "Rescheduled 1 job.\n"
    assert (row["priority"], row["attempts"], row["max_attempts"]) == (-3, 2, 7)
    assert row["run_at"].year == 2999


def test_fail_chooses_jobs_that_wait(command, rows):
    rows.add(attempts=25, last_error="'old'")
    rows.add()

    done = command("fail", "--task", "mail", "--reason", "ticket 4711", "--yes")

    assert done.output == "Failed 1 job.\n"
    assert [(row["attempts"], row["last_error"]) for row in rows.all] == [
        (25, "old"),
        (25, "ticket 4711"),
    ]


@pytest.mark.parametrize(("verb", "past"), [("complete", "Completed"), ("remove", "Removed")])
def test_complete_and_remove_delete(command, rows, verb, past):
    first, second, third = rows.add(3)

    assert command(verb, first, third).output == f"{past} 2 jobs.\n"
    assert rows.ids == [second]


def test_remove_by_key_is_dequeue(command, rows):
    rows.add(key="'a'", **HELD)
    rows.add(key="'b'")

    done = command("remove", "--key", "a", "--key", "b", "--key", "c")

    assert (done.status, done.output) == (1, "Removed 2 jobs.\n")
    assert "There is no job of the key c" in done.errors
    assert [(row["key"], row["attempts"]) for row in rows.all] == [(None, 25)]


def test_purge_deletes_failed_jobs_of_an_age(command, rows):
    rows.add(2, **FAILED)
    young = rows.add(attempts=25)
    waiting = rows.add(run_at="now() - interval '9 days'")

    assert command("purge", "--older-than", "1d", "--yes").output == "Purged 2 jobs.\n"
    assert rows.ids == [*young, *waiting]
    assert command("purge", "--older-than", "0s", "--yes").output == "Purged 1 job.\n"
    assert command("purge", "--older-than", "0s", "--yes").output == "Purged 0 jobs.\n"
    assert rows.ids == waiting


@pytest.mark.parametrize("verb", ACTS, ids=lambda verb: verb.name)
def test_what_is_left_alone_is_named(command, rows, verb):
    [held], [free] = rows.add(**HELD), rows.add()

    done = command(verb.name, held, free, "99", *CHANGE.get(verb.name, []))

    assert done.status == 1
    assert done.output.endswith("ed 1 job.\n")
    assert "1 running job, locked by w1, the oldest for 2 min" in done.errors
    assert f"({held})" in done.errors
    assert "There is no job 99: it has run, was removed, or never was." in done.errors


def test_a_filter_that_meets_running_jobs_says_so(command, rows):
    rows.add(3, **HELD)
    rows.add()

    done = command("complete", "--task", "mail", "--yes")

    assert (done.status, done.output) == (0, "Completed 1 job.\n")
    assert "Left alone: 3 running jobs, locked by w1" in done.errors


def test_a_transaction_that_holds_a_row(command, rows, database):
    [number] = rows.add()
    with psycopg.connect(database) as other:
        other.execute("select from graphile_worker._private_jobs for update")

        done = command("retry", number)

    assert done.status == 1
    assert f"because a transaction holds them at this moment ({number}): try again" in done.errors


@pytest.mark.parametrize("verb", [*ACTS, purge], ids=lambda verb: verb.name)
def test_a_dry_run_counts_and_changes_nothing(command, rows, verb):
    rows.add(2, **FAILED)
    rows.add(1, "sync", **FAILED)
    choice = ["--older-than", "1d"] if verb is purge else ["--state", "failed"]
    before = rows.all

    done = command(verb.name, *choice, *CHANGE.get(verb.name, []), "--dry-run")
    told = command(verb.name, *choice, *CHANGE.get(verb.name, []), "--dry-run", "--json")

    assert done.output.startswith("3 jobs would be ")
    assert done.output.endswith(": 2 mail, 1 sync.\n")
    assert json.loads(told.output)["tasks"] == {"mail": 2, "sync": 1}
    assert rows.all == before


@pytest.mark.parametrize("verb", [*ACTS, purge], ids=lambda verb: verb.name)
def test_without_a_terminal_and_without_yes_nothing_is_done(command, rows, verb):
    rows.add(2, **FAILED)
    choice = ["--older-than", "1d"] if verb is purge else ["--state", "failed"]
    before = rows.all

    done = command(verb.name, *choice, *CHANGE.get(verb.name, []))

    assert done.status == 2
    assert "2 jobs would be " in done.errors
    assert "(2 mail), and there is no terminal to ask: give --yes" in done.errors
    assert rows.all == before


def test_many_ids_are_asked_about_and_few_are_not(command, rows):
    ids = rows.add(11)

    assert command("complete", *ids).status == 2
    assert command("complete", *ids[:10]).output == "Completed 10 jobs.\n"
    assert rows.ids == ids[10:]


@pytest.mark.parametrize("verb", ACTS, ids=lambda verb: verb.name)
def test_no_choice_is_not_all(command, rows, verb):
    rows.add()

    bare = command(verb.name, *CHANGE.get(verb.name, []), "--yes")
    both = command(verb.name, "1", "--task", "mail", *CHANGE.get(verb.name, []))

    assert (bare.status, both.status) == (2, 2)
    assert "Say which jobs" in bare.errors
    assert "Give either IDs or options" in both.errors
    assert verb.name != "reschedule" or "Say what to change" in command(verb.name, "1").errors


def test_json_of_an_act(command, rows):
    [held], [free] = rows.add(**HELD), rows.add()

    done = command("complete", held, free, "99", "--json")

    told = json.loads(done.output)
    assert (told["changed"], told["missing"], told["busy"]) == (1, ["99"], [])
    assert [(one["locked_by"], one["ids"]) for one in told["held"]] == [("w1", [held])]


CTRL_D = b"\x04"


@pytest.mark.parametrize(
    ("typed", "status", "left"), [(b"y\n", 0, 1), (b"n\n", 1, 4), (CTRL_D, 1, 4)]
)
def test_the_question_on_a_terminal(rows, on_terminal, typed, status, left):
    rows.add(3)
    rows.add(**HELD)

    ended, seen = on_terminal("complete", "--task", "mail", prompt="[y/N]: ", then=typed)

    assert ended == status
    assert "3 jobs: 3 mail." in seen
    assert "Left alone: 1 running job, locked by w1" in seen
    assert "Complete 3 jobs? [y/N]" in seen
    assert len(rows.ids) == left
    assert "Traceback" not in seen


class TestUnlock:
    @pytest.fixture
    def held(self, rows):
        rows.add(2, **HELD)
        return rows

    def test_a_worker_that_nobody_can_know_of(self, command, held):
        done = command("unlock", "w1", "w2")

        assert done.status == 1
        assert "w1 has no heartbeat" in done.errors
        assert "zodworker unlock --force w1" in done.errors
        assert "w2 holds no job and no queue." in done.errors
        assert {row["locked_by"] for row in held.all} == {"w1"}

    def test_force(self, command, held):
        assert command("unlock", "--force").status == 2
        refused = command("unlock", "--force", "w1")
        assert refused.status == 2
        assert "would run twice" in refused.errors
        planned = command("unlock", "--force", "w1", "--dry-run")
        assert planned.output == "Would unlock w1: 2 jobs and 0 queues.\n"
        assert {row["locked_by"] for row in held.all} == {"w1"}

        done = command("unlock", "--force", "w1", "--yes")

        assert (done.status, done.output) == (0, "Unlocked w1: 2 jobs and 0 queues.\n")
        assert {row["locked_by"] for row in held.all} == {None}

    def test_nobody_is_dead(self, command, held):
        assert command("unlock").output == "No worker that is dead holds anything.\n"
        assert json.loads(command("unlock", "--json").output)["freed"] == []

    @pytest.mark.parametrize(("typed", "status", "left"), [(b"y\n", 0, None), (b"\n", 1, "w1")])
    def test_the_question_on_a_terminal(self, held, on_terminal, typed, status, left):
        ended, seen = on_terminal("unlock", "--force", "w1", prompt="[y/N]: ", then=typed)

        assert ended == status
        assert "Have their processes ended? [y/N]" in seen
        assert {row["locked_by"] for row in held.all} == {left}


async def test_ctrl_c_in_the_middle_says_what_was_done(rows, database, start_zodworker, eventually):
    rows.add(1001)
    with psycopg.connect(database, autocommit=True) as other:
        # The second batch waits for this lock; the first is done by then.
        other.execute("create table public.gate ()")
        other.execute(
            "create function public.wait() returns trigger language plpgsql as $$ begin"
            " if old.id = 1001 then lock table public.gate in access exclusive mode; end if;"
            " return old; end $$"
        )
        other.execute(
            "create trigger wait before delete on graphile_worker._private_jobs"
            " for each row execute function public.wait()"
        )
        with other.transaction():
            other.execute("lock table public.gate in access exclusive mode")
            running = start_zodworker(
                "complete", "--task", "mail", "--yes", env={"DATABASE_URL": database}
            )
            waits = (
                "select 1 from pg_locks where not granted and relation = 'public.gate'::regclass"
            )
            await eventually(lambda: rows.run(waits), timeout=60)
            running.send(signal.SIGINT)
            status = running.wait(60)

    assert status == 1
    assert "Stopped: 1,000 of 1,001 jobs were completed before." in running.errors
    assert "Traceback" not in running.errors
    assert rows.ids == ["1001"]
