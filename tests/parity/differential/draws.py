"""What the calls are made with."""

from datetime import UTC, datetime, timedelta

from differential.both_sides import LOCK_EXPIRY
from hypothesis import strategies as st

LONGEST = "the longest"
"""Stands for a name that is as long as it may be: examples are there to be read."""
NAMES = ("a", "b", "tâche 😀", LONGEST)
KEYS = ("k", "k", "ключ", LONGEST)
QUEUES = ("q", "q", "r", LONGEST)
POOLS = ("pool-1", "pool-2")
FLAGS = st.lists(st.sampled_from(["f", "g", "flag é"]), max_size=3)
MODES = ("replace", "preserve_run_at", "unsafe_dedupe")
SECONDS = timedelta(seconds=1)
TIMES = st.sampled_from(
    [
        *(seconds * SECONDS for seconds in (-60, -5, -1, 0, 1, 5)),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, tzinfo=UTC),
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 9),
    st.sampled_from(["", "é", "\u2028", '"', "\0", "😀"]),
)
ARRAYS = st.lists(SCALARS | st.fixed_dictionaries({"a": SCALARS}), max_size=2)
PAYLOADS = st.one_of(
    ARRAYS, ARRAYS, SCALARS, st.dictionaries(st.sampled_from("bac"), ARRAYS, max_size=2)
)
OPTIONS = {
    "queue_name": st.sampled_from(QUEUES),
    "run_at": TIMES,
    "max_attempts": st.sampled_from([1, 1, 2, 3, 25, 32767]),
    "priority": st.sampled_from([-32768, -1, 0, 1, 1, 32767]),
    "flags": FLAGS,
}
KEYED = {"job_key": st.sampled_from(KEYS), "job_key_mode": st.sampled_from(MODES)}
SPECS = st.fixed_dictionaries(
    {"identifier": st.sampled_from(NAMES)}, optional={"payload": PAYLOADS, **OPTIONS}
)
NULL = "null of SQL"
# Of these at most one in a call: which of two wrong values PostgreSQL finds first is open.
ILLEGAL = (
    {"identifier": "y" * 129},
    {"queue_name": "y" * 129},
    {"job_key": "y" * 513},
    {"max_attempts": -1},
    {"max_attempts": 32768},
    {"priority": -32769},
    {"priority": 32768},
    {"job_key": "k", "job_key_mode": "bogus"},
)
ODD = (
    *ILLEGAL,
    {"identifier": ""},
    {"identifier": None},
    {"queue_name": ""},
    {"job_key": ""},
    {"job_key_mode": "bogus"},
    {"job_key_mode": None},
    {"max_attempts": 0},
    {"flags": [None]},
    {"payload": "not JSON"},
    {"run_at": "infinity"},
    {"payload": NULL},
    *({name: None} for name in ("queue_name", "run_at", "max_attempts", "job_key", "priority", "flags")),
)  # fmt: skip
NOTHING = st.just({})
IN_API = st.one_of(NOTHING, NOTHING, NOTHING, st.sampled_from(ILLEGAL))
IN_SQL = NOTHING | st.sampled_from(ODD)
KEYED_SPECS = st.tuples(SPECS, st.fixed_dictionaries({}, optional=KEYED)).map(
    lambda two: two[0] | two[1]
)
JOBS = st.lists(st.integers(0, 6), min_size=1, max_size=4) | st.just([])
"""Numbers of jobs, locked ones first; one that is too high is the id of no job."""
MESSAGES = st.sampled_from(["boom", "", "é 😀\n", "x" * 1000])
MILLISECOND = timedelta(milliseconds=1)
HALF_AN_HOUR = timedelta(minutes=30)
EXPIRES = LOCK_EXPIRY - SECONDS
AGES = st.sampled_from(
    [
        0 * SECONDS,
        EXPIRES - HALF_AN_HOUR,
        *(EXPIRES + n * MILLISECOND for n in (-1, 0, 1)),
        EXPIRES + HALF_AN_HOUR,
    ]
)
"""Of a lock; every call comes a second later."""
FOUND = st.fixed_dictionaries(
    {
        "number": st.integers(0, 3),
        "pool": st.none() | st.sampled_from(POOLS),
        "age": AGES,
        "attempts": st.sampled_from([0, 1, 1, 2, 9, 10, 11]),
        "last_error": st.none() | MESSAGES,
        "queue": st.sampled_from(["same", "same", "free", *POOLS]),
        "age_of_queue": AGES,
    }
)
EVENTS = st.tuples(
    st.sampled_from(["due", "expired"]),
    st.integers(0, 3),
    st.sampled_from([-1, 0, 1]).map(lambda n: n * MILLISECOND),
)
WHEN = st.none() | FOUND | EVENTS
"""When a call is made: a second later; after a job has been put into a state that is long to come to;
or around the time that a job is due, or its lock expires."""
