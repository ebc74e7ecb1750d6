"""The state machine: every rule is one call, made on both sides; then everything is compared."""

from datetime import timedelta

from differential import both_sides
from differential.answers import (
    BEFORE_ANY_SQL,
    COMPACT,
    answer_of,
    camel,
    claimed_dict,
    columns_of,
    discard,
    full,
    given,
    hold_rows,
    ids_and_locks,
    in_sql,
    job_dict,
    repr_of,
)
from differential.both_sides import IDENTIFIERS, LOCK_EXPIRY
from differential.departures import (
    as_node_can_say,
    change_failed,
    free_queues_of_stale_jobs,
    give_back,
    put_back,
)
from differential.draws import (
    FLAGS,
    IN_API,
    IN_SQL,
    JOBS,
    KEYED_SPECS,
    KEYS,
    MESSAGES,
    NAMES,
    NOTHING,
    POOLS,
    QUEUES,
    SECONDS,
    SPECS,
    TIMES,
    WHEN,
)
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

OTHERS = {
    "claims the job": lambda spec: (
        """update {schema}._private_jobs set locked_at = now(), locked_by = 'other',
            attempts = least(attempts, 32766) + 1 where key = %s""",
        [spec["job_key"]],
    ),
    "deletes the job": lambda spec: (
        "delete from {schema}._private_jobs where key = %s",
        [spec["job_key"]],
    ),
    "adds the job": lambda spec: (
        "select {schema}.add_job('other', job_key => %s, queue_name => 'other')",
        [spec["job_key"]],
    ),
    "adds the task": lambda spec: ("select {schema}.add_job(%s)", [spec["identifier"]]),
    "adds the queue": lambda spec: (
        "select {schema}.add_job('other', queue_name => %s)",
        [spec["queue_name"]],
    ),
}
"""What another session does meanwhile, to a spec's job or to its names."""


class Machine(RuleBasedStateMachine):
    """Every rule is one call on both sides; then everything is compared."""

    sides: "both_sides.BothSides"

    def __init__(self):
        super().__init__()
        self.sides.start()
        self.claims = []
        """(pool, our job, Node's job) of every claim, whether the pool still holds the job or not."""

    # --- time

    def at(self, when, about=()):
        """Let time pass until the next call, which is about these jobs of ours, or about any."""
        sides = self.sides
        jobs = [id_ for id_ in about if id_ in sides.jobs] or list(sides.jobs)
        now = sides.now + SECONDS
        if isinstance(when, dict) and jobs:
            self.find(jobs[when["number"] % len(jobs)], when)
            sides.compare()
        elif when and jobs:
            event, number, offset = when
            column, since = {
                "due": ("run_at", offset),
                "expired": ("locked_at", LOCK_EXPIRY + offset),
            }[event]
            times = [sides.jobs[id_][column] for id_ in jobs]
            times = [both_sides.moment(time) for time in times if time and time < "9999"]
            soon = [time for time in times if now < time + since < now + timedelta(days=1)]
            if soon:
                now = soon[number % len(soon)] + since
        sides.set_clock(now)

    def find(self, id_, found):
        """Put a job and its queue into a state."""
        sides = self.sides
        pool, locked_at = found["pool"], sides.now - found["age"]
        sides.change(
            id_,
            "locked_by = %s, locked_at = %s, attempts = %s, last_error = %s",
            pool, pool and locked_at, found["attempts"], found["last_error"],
        )  # fmt: skip
        other = None if found["queue"] == "free" else found["queue"]
        locked = [pool, pool and locked_at]
        if found["queue"] != "same":
            locked = [other, other and sides.now - found["age_of_queue"]]
        sides.sql(
            "update {schema}._private_job_queues set locked_by = %s, locked_at = %s"
            " where queue_name = %s",
            [*locked, sides.jobs[id_]["queue_name"]],
        )

    def is_taken(self, spec):
        """Whether a running or failed job has a spec's key: it is not added in our first statement."""
        return any(
            not self.sides.jobs[id_]["is_available"] for id_ in self.of_key(spec.get("job_key"))
        )

    def of_key(self, key):
        """Return the ids of the jobs of a key."""
        return [id_ for id_, row in self.sides.jobs.items() if key and row["key"] == key]

    def said(self, spec):
        """Return what a spec stands for: a `run_at` that counts from now, long names."""
        run_at = spec.get("run_at")
        return {name: full(value, name) for name, value in spec.items()} | (
            {"run_at": self.sides.now + run_at} if isinstance(run_at, timedelta) else {}
        )

    # --- calls and answers

    def call(self, ours, theirs, **compare):
        """Make both calls and compare the answers and the tables; returns the answers."""
        before = self.sides.jobs
        answers = [answer_of(ours), answer_of(theirs)]
        self.sides.compare(**compare)
        if "refused" in (answers[0][0], answers[1][0]):
            if answers[0] == BEFORE_ANY_SQL:
                answers[1] = (answers[1][0], None)
            both_sides.same("answer", *answers)
            return None, None
        rows = [
            [answer] if isinstance(answer, dict) else list(answer or ()) for _, answer in answers
        ]
        rows = [[row for row in side if row["id"] is not None] for side in rows]
        self.compare_results(*rows, before)
        return rows

    def compare_results(self, ours, theirs, before):
        sides = self.sides
        both_sides.same("result", *(sorted(map(repr_of, rows)) for rows in (ours, theirs)))
        known = {**before, **sides.jobs}
        for job in ours:
            id_ = int(job["id"])
            row = known[id_]
            for name, value in (("task_identifier", "identifier"), ("queue_name", "queue_name")):
                if name in job and id_ in known:
                    both_sides.same(name, job[name], row[value])
            if id_ in sides.pairs:
                assert any(int(their["id"]) == sides.pairs[id_] for their in theirs), id_

    def ids(self, numbers):
        """Return our ids and Node's."""
        jobs = self.sides.jobs
        ours = sorted(jobs, key=lambda id_: (jobs[id_]["locked_at"] is None, id_))
        chosen = [ours[number] if number < len(ours) else -1 for number in numbers]
        return chosen, [self.sides.pairs.get(id_, 2**40) for id_ in chosen]

    def api_ids(self, numbers):
        ours, theirs = self.ids(numbers)
        return [str(id_) if id_ > 0 else str(2**40) for id_ in ours], list(map(str, theirs))

    # --- enqueue

    @initialize(specs=st.lists(KEYED_SPECS, max_size=5))
    def some_jobs(self, specs):
        for spec in specs:
            self.add_job_in_sql(spec, {}, None)

    @rule(spec=KEYED_SPECS, odd=IN_API, when=WHEN)
    def add_job(self, spec, odd, when):
        self.at(when, self.of_key(full(spec.get("job_key"), "job_key")))
        spec = self.said(spec | odd)
        options = dict(spec)
        if "payload" in options:
            options["payload"] = as_node_can_say(options["payload"])
        identifier = options.pop("identifier")
        given = {"payload": options.pop("payload")} if "payload" in options else {}
        client = self.sides.ours.client
        name = "addJob" if given else "addJobWithoutPayload"
        if identifier not in IDENTIFIERS:  # no client has such a task
            return
        self.call(
            lambda: job_dict(
                self.sides.ours.run(client.enqueue(identifier, *given.values(), **options))
            ),
            lambda: self.sides.theirs.call(name, identifier, *given.values(), camel(options)),
        )

    @rule(spec=KEYED_SPECS, odd=IN_SQL, when=WHEN)
    def add_job_in_sql(self, spec, odd, when):
        self.at(when, self.of_key(full(spec.get("job_key"), "job_key")))
        arguments = in_sql(self.said(spec | odd))
        self.call(
            *(lambda side=side: side.function("add_job", **arguments) for side in self.sides.each)
        )

    @rule(
        specs=st.lists(SPECS, max_size=4) | st.lists(KEYED_SPECS, max_size=4),
        preserve=st.booleans(),
        when=WHEN,
    )
    def add_jobs(self, specs, preserve, when):
        self.at(
            when,
            [id_ for spec in specs for id_ in self.of_key(full(spec.get("job_key"), "job_key"))],
        )
        mode = {"job_key_mode": "preserve_run_at"} if preserve else {}
        specs = [self.said(spec | mode) for spec in specs]
        for spec in specs:
            spec["payload"] = as_node_can_say(spec.get("payload"), many=True)
            if not mode:
                spec.pop("job_key_mode", None)
        requests = [
            (spec["identifier"], spec["payload"],
             {name: spec[name] for name in spec if name not in ("identifier", "payload")})
            for spec in specs
        ]  # fmt: skip
        client = self.sides.ours.client

        def ours():
            return [job_dict(job) for job in self.sides.ours.run(client.enqueue_many(requests))]

        def theirs():
            if self.sides.theirs.version == "0.16":  # has no addJobs
                return self.sides.theirs.add_jobs(
                    [in_sql(spec, **COMPACT) for spec in specs], job_key_preserve_run_at=preserve
                )
            rows = self.sides.theirs.call("addJobs", list(map(camel, specs)), preserve)
            for row in rows:
                del row["task_identifier"]  # wrong in mixed batches
            return rows

        # No jobs are no notification, and no statement, here.
        added, _ = self.call(
            ours, theirs, notified=bool(specs), again=sum(map(self.is_taken, specs))
        )
        for spec, job in zip(specs, added or (), strict=added is not None):
            both_sides.same("order of the result", job["task_identifier"], spec["identifier"])
            both_sides.same("order of the result", job["key"], spec.get("job_key"))

    @rule(
        specs=st.lists(
            KEYED_SPECS,
            min_size=2,
            max_size=4,
            unique_by=lambda spec: spec.get("job_key") or id(spec),
        ),
        when=WHEN,
    )
    def add_jobs_in_several_modes(self, specs, when):
        """graphile-worker has one mode for a batch; ours are added one by one, in the order of the keys."""
        modes = {spec.get("job_key_mode") or "replace" for spec in specs if spec.get("job_key")}
        if len(modes) < 2 and "unsafe_dedupe" not in modes:
            return
        self.at(
            when,
            [id_ for spec in specs for id_ in self.of_key(full(spec.get("job_key"), "job_key"))],
        )
        specs = [self.said(spec) for spec in specs]
        requests = [
            (spec["identifier"], spec.get("payload", {}),
             {name: spec[name] for name in spec if name not in ("identifier", "payload")})
            for spec in specs
        ]  # fmt: skip
        sides = self.sides

        def theirs():
            ordered = sorted(specs, key=lambda spec: spec.get("job_key") or "")
            with sides.theirs.connection.transaction():  # all or none, as ours
                return [
                    row
                    for spec in ordered
                    for row in sides.theirs.function(
                        "add_job", **in_sql({"payload": {}} | spec, **COMPACT)
                    )
                ]

        self.call(
            lambda: [
                job_dict(job) for job in sides.ours.run(sides.ours.client.enqueue_many(requests))
            ],
            theirs,
        )

    @rule(
        specs=st.lists(SPECS, max_size=4) | st.lists(KEYED_SPECS, max_size=4),
        odd=IN_SQL,
        preserve=st.fixed_dictionaries({}, optional={"job_key_preserve_run_at": st.booleans()}),
        when=WHEN,
    )
    def add_jobs_in_sql(self, specs, odd, preserve, when):
        self.at(
            when,
            [id_ for spec in specs for id_ in self.of_key(full(spec.get("job_key"), "job_key"))],
        )
        if odd:
            specs = [*(spec for spec in specs[:-1] if not spec.get("job_key")), *specs[-1:]]
        specs = [
            in_sql(self.said(spec)) for spec in [*specs[:-1], *(spec | odd for spec in specs[-1:])]
        ]
        added, _ = self.call(
            *(lambda side=side: side.add_jobs(specs, **preserve) for side in self.sides.each)
        )
        for spec, job in zip(specs, added or (), strict=added is not None):  # departure 14
            row = self.sides.jobs[job["id"]]
            both_sides.same("order of the result", row["identifier"], spec["identifier"])
            both_sides.same("order of the result", job["key"], spec.get("job_key"))

    @rule(key=st.sampled_from([*KEYS, "unknown"]), when=WHEN)
    def remove_job(self, key, when):
        self.at(when, self.of_key(full(key, "job_key")))
        sides = self.sides
        key = full(key, "job_key")
        self.call(
            lambda: job_dict(sides.ours.run(sides.ours.client.dequeue(key))),
            lambda: sides.theirs.function("remove_job", job_key=key),
        )

    @rule(key=st.sampled_from([*KEYS, None, ""]), when=WHEN)
    def remove_job_in_sql(self, key, when):
        self.at(when, self.of_key(full(key, "job_key")))
        key = full(key, "job_key")
        self.call(
            *(
                lambda side=side: side.function("remove_job", job_key=key)
                for side in self.sides.each
            )
        )

    # --- admin calls

    @rule(jobs=JOBS, when=WHEN)
    def complete_jobs(self, jobs, when):
        self.at(when, self.ids(jobs)[0])
        self.admin(jobs, "complete_jobs", "completeJobs")

    @rule(jobs=JOBS, reason=st.none() | MESSAGES.filter(bool), when=WHEN)
    def permanently_fail_jobs(self, jobs, reason, when):
        self.at(when, self.ids(jobs)[0])
        self.admin(
            jobs,
            "permanently_fail_jobs",
            "permanentlyFailJobs",
            *([] if reason is None else [reason]),
        )

    @rule(
        jobs=JOBS,
        changes=st.fixed_dictionaries(
            {},
            optional={
                "run_at": TIMES,
                "priority": st.sampled_from([-32768, -1, 1, 32767]),  # 0 is departure 50
                "attempts": st.sampled_from([-1, 1, 2, 25, 32767]),
                "max_attempts": st.sampled_from([1, 2, 32767]),
            },
        ),
        when=WHEN,
    )
    def reschedule_jobs(self, jobs, changes, when):
        self.at(when, self.ids(jobs)[0])
        changes = self.said(changes)
        self.admin(jobs, "reschedule_jobs", "rescheduleJobs", camel(changes), **changes)

    def admin(self, jobs, name, node_name, *arguments, **changes):
        sides = self.sides
        ours, theirs = self.api_ids(jobs)
        positional = [] if changes or name == "reschedule_jobs" else arguments
        free_queues_of_stale_jobs(sides, jobs and ours)
        changed, _ = self.call(
            lambda: list(
                map(
                    job_dict,
                    sides.ours.run(getattr(sides.ours.client, name)(ours, *positional, **changes)),
                )
            ),
            lambda: sides.theirs.call(node_name, theirs, *arguments),
        )
        found = [int(job["id"]) for job in changed or ()]
        both_sides.same("order of the result", found, sorted(found))

    @rule(
        jobs=JOBS,
        call=st.one_of(
            st.tuples(st.just("complete_jobs"), NOTHING),
            st.tuples(
                st.just("permanently_fail_jobs"),
                st.fixed_dictionaries({}, optional={"error_message": st.none() | MESSAGES}),
            ),
            st.tuples(
                st.just("reschedule_jobs"),
                st.fixed_dictionaries(
                    {},
                    optional={
                        "run_at": TIMES | st.none(),
                        "priority": st.sampled_from([-32768, 0, 32767, 32768, None]),
                        "attempts": st.sampled_from([-99, 0, 1, 32767, None]),
                        "max_attempts": st.sampled_from([0, 1, 2, 3, 32768, None]),
                    },
                ),
            ),
        ),
        when=WHEN,
    )
    def admin_in_sql(self, jobs, call, when):
        self.at(when, self.ids(jobs)[0])
        name, arguments = call
        arguments = self.said(arguments)
        self.call(
            *(
                lambda side=side, ids=ids: side.function(name, job_ids=ids, **arguments)
                for side, ids in zip(self.sides.each, self.ids(jobs), strict=True)
            )
        )

    @rule(pools=st.lists(st.sampled_from([*POOLS, "nobody"]), max_size=2), when=WHEN)
    def force_unlock_workers(self, pools, when):
        self.at(when)
        sides = self.sides
        self.call(
            lambda: sides.ours.run(sides.ours.client.force_unlock_workers(pools)),
            lambda: sides.theirs.call("forceUnlockWorkers", pools),
        )

    @rule(
        tasks=st.lists(
            st.sampled_from(["DELETE_PERMAFAILED_JOBS", "GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES"]),
            max_size=3, unique=True,
        ),
        keep=st.lists(st.sampled_from(NAMES), max_size=2),
        when=WHEN,
    )  # fmt: skip
    def cleanup(self, tasks, keep, when):
        self.at(when)
        sides = self.sides
        keep = [full(name, "identifier") for name in keep]
        before = sides.ours.snapshot()
        if "DELETE_PERMAFAILED_JOBS" in tasks:  # departure 49
            sides.theirs.execute(
                "delete from {schema}._private_jobs where attempts > max_attempts and locked_at is null"
            )
        result = sides.ours.run(sides.ours.collector.cleanup(tasks, task_identifiers_to_keep=keep))
        self.call(lambda: (), lambda: sides.theirs.call("cleanup", tasks, keep))
        after = sides.ours.snapshot()
        gone = [len(before[name]) - len(after[name]) for name in ("jobs", "tasks", "queues")]
        both_sides.same("deleted", [result.jobs, result.task_identifiers, result.queues], gone)

    # --- the life of a job

    @rule(
        pool=st.sampled_from(POOLS),
        identifiers=st.one_of(
            st.just(list(NAMES)),
            st.just(list(NAMES)),
            st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
        ),
        limit=st.integers(1, 4),
        flags=st.none() | st.none() | FLAGS,
        held=st.just(([], []))
        | st.just(([], []))
        | st.tuples(JOBS, st.lists(st.sampled_from(QUEUES), max_size=1)),
        when=WHEN,
    )
    def claim(self, pool, identifiers, limit, flags, held, when):
        """A few jobs and queues may be locked by sessions that have not committed yet."""
        self.at(when)
        sides = self.sides
        identifiers = [full(name, "identifier") for name in identifiers]
        if flags is not None:
            limit = 1  # a worker with a limiter claims fewer of a batch (departure 46)
        # Whoever holds a job in a queue holds the queue. Else Node would take the next job of the
        # queue; here that waits its turn.
        both_ids = self.ids(held[0])
        queues = [sides.jobs[id_]["queue_name"] for id_ in both_ids[0] if id_ in sides.jobs]
        queues += [full(name, "queue_name") for name in held[1]]
        for side, ids in zip(sides.each, both_ids, strict=True):
            hold_rows(side, ids, queues)
        is_blocked = self.is_blocked(pool, identifiers, limit, flags or (), both_ids[0])
        batch, ours = sides.ours.claim(pool, identifiers, limit, flags)
        theirs = sides.theirs.claim(pool, identifiers, limit, flags)
        for side in sides.each:
            side.other.rollback()
        ours_seen = [claimed_dict(job, pool) for job in ours]
        self.call(lambda: ours_seen, lambda: theirs)
        both_sides.same(
            "order of the claim",
            *([columns_of(job) for job in jobs] for jobs in (ours_seen, theirs)),
        )
        self.claims += zip([pool] * len(ours), batch.jobs, theirs, strict=True)
        if not any(held) and len(ours) < limit:
            assert not batch.more
        both_sides.same("blocked", batch.blocked, is_blocked)

    def is_blocked(self, pool, identifiers, limit, flags, held):
        """Whether a queue of another pool has jobs that would come before the last of a full batch."""
        due = [
            (job["priority"], both_sides.moment(job["run_at"]), job["queue_name"])
            for id_, job in self.sides.jobs.items()
            if job["is_available"]
            and (job["queue_name"] or id_ not in held)
            and both_sides.moment(job["run_at"]) <= self.sides.now
            and job["identifier"] in identifiers
            and not set(job["flags"] or ()) & set(flags)
        ]
        last = sorted(job[:2] for job in due if not job[2])[limit - 1 : limit]
        queues = self.sides.queues
        return any(
            queues[job[2]]["locked_by"] not in {None, pool} and (not last or job[:2] < last[0])
            for job in due
            if job[2]
        )

    def settling(self, pool, numbers):
        """Return the chosen claims of a pool, and those of them whose job it still holds."""
        mine = [claim for claim in self.claims if claim[0] == pool]
        chosen = {claim[1].id: claim for number in numbers for claim in mine[number : number + 1]}
        claims = list(chosen.values())
        rows = self.sides.jobs
        held = [
            claim
            for claim in claims
            if claim[1].id in rows and rows[claim[1].id]["locked_by"] == pool
        ]
        return claims, held

    def settle(self, ours, theirs, claims, held, forget):
        """Settle; the ids of the claims that are not `held` must come back."""
        if forget:
            self.claims = [claim for claim in self.claims if claim not in claims]
        unsettled = ours([claim[1] for claim in claims])
        lost = sorted((claim[1].id, False) for claim in claims if claim not in held)
        both_sides.same("unsettled", sorted(map(tuple, unsettled)), lost)
        self.call(lambda: (), lambda: theirs([claim[2] for claim in held]))

    @precondition(lambda self: self.claims)
    @rule(
        pool=st.sampled_from(POOLS),
        numbers=JOBS,
        forget=st.booleans(),
        careful=st.booleans(),
        when=WHEN,
    )
    def succeed(self, pool, numbers, forget, careful, when):
        """Node deletes a job even if its lock is somebody else's now (departure 28)."""
        self.at(when)
        claims, held = self.settling(pool, numbers)
        sides = self.sides
        self.settle(
            lambda jobs: sides.ours.queue("complete", pool, [job.id for job in jobs], careful=careful),
            lambda jobs: discard(sides.theirs.call("complete", pool, jobs)),
            claims, held, forget,
        )  # fmt: skip

    @precondition(lambda self: self.claims)
    @rule(
        pool=st.sampled_from(POOLS),
        numbers=JOBS,
        message=MESSAGES,
        delay=st.sampled_from([None, None, None, 0.0, 7.5]),
        permanent=st.booleans(),
        forget=st.booleans(),
        careful=st.booleans(),
        when=WHEN,
    )
    def fail(self, pool, numbers, message, delay, permanent, forget, careful, when):
        self.at(when)
        sides = self.sides
        claims, held = self.settling(pool, numbers)
        held = [claim for claim in held if self.is_of_this_claim(claim)]

        def ours(jobs):
            return sides.ours.queue(
                "fail", pool, *ids_and_locks(jobs), [f"{message} {job.attempts}" for job in jobs],
                [delay] * len(jobs), [permanent] * len(jobs), careful=careful,
            )  # fmt: skip

        def theirs(jobs):
            run_at = {int(job["id"]): job["run_at"] for job in jobs}
            sides.theirs.call("fail", pool, jobs, [f"{message} {job['attempts']}" for job in jobs])
            change_failed(sides, run_at, delay, permanent)
            return ()

        self.settle(ours, theirs, claims, held, forget)

    def is_of_this_claim(self, claim):
        """Whether the row's lock is this claim's, and not one of a later claim of the same pool.

        A lock that was refreshed is whole hours younger.
        """
        age = both_sides.moment(self.sides.jobs[claim[1].id]["locked_at"]) - claim[1].locked_at
        return age % timedelta(hours=1) == timedelta(0)

    @precondition(lambda self: self.claims)
    @rule(
        pool=st.sampled_from(POOLS), numbers=JOBS, message=st.none() | MESSAGES,
        forget=st.booleans(), careful=st.booleans(), when=WHEN,
    )  # fmt: skip
    def give_back(self, pool, numbers, message, forget, careful, when):
        """Jobs that a shutting down worker has claimed and not begun."""
        self.at(when)
        sides = self.sides
        claims, held = self.settling(pool, numbers)
        held = [claim for claim in held if self.is_of_this_claim(claim)]
        self.settle(
            lambda jobs: sides.ours.queue(
                "return_jobs", pool, *ids_and_locks(jobs), [message] * len(jobs), careful=careful
            ),
            lambda jobs: give_back(sides, pool, jobs, message),
            claims, held, forget,
        )  # fmt: skip

    @precondition(lambda self: self.claims)
    @rule(pool=st.sampled_from(POOLS), number=st.integers(0, 3), when=WHEN)
    def put_back(self, pool, number, when):
        """What a rate limiter does with a job whose flag is full."""
        self.at(when)
        sides = self.sides
        claims, held = self.settling(pool, [number])
        for claim in claims:
            if claim not in held:
                assert sides.ours.queue("reschedule", pool, claim[1].id, "[]") is None
                sides.compare()
                continue
            row = sides.jobs[claim[1].id]

            def ours(job=claim[1], row=row):
                assert sides.ours.queue("reschedule", pool, job.id, row["payload"]) is not None

            self.call(ours, lambda row=row, claim=claim: put_back(sides, pool, claim[2], row))

    @rule(when=WHEN)
    def sweep(self, when):
        self.at(when)
        sides = self.sides
        before = [sum(row["locked_at"] is not None for row in rows) for rows in self.rows()]
        counts = sides.ours.queue("sweep")
        self.call(lambda: (), lambda: discard(sides.theirs.call("sweep")))
        after = [sum(row["locked_at"] is not None for row in rows) for rows in self.rows()]
        both_sides.same("swept", list(counts), [b - a for b, a in zip(before, after, strict=True)])

    def rows(self):
        return self.sides.jobs.values(), self.sides.queues.values()

    # --- two sessions at once

    @rule(
        spec=KEYED_SPECS,
        key=st.sampled_from(KEYS),
        many=st.booleans(),
        other=st.sampled_from(list(OTHERS)),
        commit=st.booleans(),
        when=WHEN,
    )
    def add_job_while_another_session(self, spec, key, many, other, commit, when):
        self.at(when)
        sides = self.sides
        spec = {"queue_name": "q"} | self.said(spec) | {"job_key": full(key, "job_key")}
        if name := {"adds the task": "identifier", "adds the queue": "queue_name"}.get(other):
            spec[name] = f"new at {sides.now:%d %H:%M:%S.%f}"
        spec = in_sql(spec)
        if many:
            spec.pop("job_key_mode", None)

        def add(side):
            rows = side.add_jobs([spec]) if many else side.function("add_job", **spec)
            if side is sides.theirs and (not rows or rows[0]["id"] is None):
                # graphile-worker #580: nothing was added. Ours never comes to that (departures 2, 13).
                rows = side.add_jobs([spec]) if many else side.function("add_job", **spec)
                side.snapshot()
            return rows

        def hold(connection, side):
            side.execute(*OTHERS[other](spec), connection)

        ours, theirs = sides.beside(hold, lambda side: answer_of(lambda: add(side)), commit=commit)
        self.call(lambda: given(ours), lambda: given(theirs), notified=False)
