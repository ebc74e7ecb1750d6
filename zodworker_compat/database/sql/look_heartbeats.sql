-- The Python workers that say that they live, and those that died within a day.
select
    pool_id, name, host, pid, version, concurrency, tasks, started_at, beat_at,
    greatest(now() - beat_at, interval '0') as silent_for,
    dead_at is not null or beat_at < now() - dead_after as is_dead,
    recovered_at
from :schema.zodworker_workers
order by beat_at desc
limit %(limit)s::bigint
