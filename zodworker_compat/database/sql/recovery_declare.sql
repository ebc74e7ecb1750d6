-- Declares the silent pools dead and returns them. A beat that comes at the same moment wins: its
-- row is locked, and so skipped, or has been changed, and so is looked at again.
--
-- Silence counts while the database could have been reached: who judges has heard from it without
-- a break for `watched`, which must be a `share` of the other's limit, and the server has been up
-- for all of it. A time of the future is as old as one of the past: somebody set the clock back.
with silent as materialized (
    select pool_id
    from :schema.zodworker_workers
    where dead_at is null
      and pool_id <> %(pool_id)s
      and now() - beat_at not between - dead_after and dead_after
      and %(watched)s::interval >= dead_after * %(share)s::float8
      and now() - pg_postmaster_start_time() >= dead_after
    for update skip locked
)
update :schema.zodworker_workers as dead
set dead_at = now()
from silent
where dead.pool_id = silent.pool_id
returning
    dead.pool_id, dead.name, dead.host, dead.pid,
    extract(epoch from now() - dead.beat_at)::float8 as silence
