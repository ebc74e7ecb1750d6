"""Recurring tasks: reading crontabs, and when which job is owed. Pure: no I/O, no clock, no timer.

Syntax, error texts and backfilling are graphile-worker's, so that a Python and a Node process with
the same crontab enqueue each minute's job once; time zones and catch-up policies are ours.
"""

from zodworker_compat.cron.clock import next_after, occurrences
from zodworker_compat.cron.crontab import parse_crontab
from zodworker_compat.cron.errors import CrontabError
from zodworker_compat.cron.item import (
    CatchUp,
    CronItem,
    CronOptions,
    parse_cron_item,
    parse_cron_items,
)
from zodworker_compat.cron.pattern import Digest, Match, Pattern, parse_pattern
from zodworker_compat.cron.plan import (
    KnownCrontab,
    Schedule,
    Tick,
    backfill,
    due,
    job_of,
    job_payload,
    missed,
    plan_tick,
    schedule,
    time_until,
)

__all__ = [
    "CatchUp",
    "CronItem",
    "CronOptions",
    "CrontabError",
    "Digest",
    "KnownCrontab",
    "Match",
    "Pattern",
    "Schedule",
    "Tick",
    "backfill",
    "due",
    "job_of",
    "job_payload",
    "missed",
    "next_after",
    "occurrences",
    "parse_cron_item",
    "parse_cron_items",
    "parse_crontab",
    "parse_pattern",
    "plan_tick",
    "schedule",
    "time_until",
]
