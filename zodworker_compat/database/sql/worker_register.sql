-- Enters a pool among the living.
insert into :schema.zodworker_workers
    (pool_id, name, host, pid, version, concurrency, tasks, dead_after)
values (
    %(pool_id)s, %(name)s, %(host)s, %(pid)s, %(version)s, %(concurrency)s, %(tasks)s::text[],
    %(dead_after)s::interval
)
on conflict (pool_id) do nothing -- the answer to a first try was lost
