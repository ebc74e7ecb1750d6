-- Gives back the jobs `ids` that `pool_id` still holds as if they had not been claimed: the
-- attempt is not counted. A message, where there is one, says why in `last_error`.
-- Returns the ids that were not settled: `is_busy` if the job is still the pool's, and locked by
-- an open transaction; else it was not the pool's any more, and its result changed nothing.
--
-- `locked_at` tells this claim from a later one of the same pool: if the answer to a first try is
-- lost, the pool may have claimed the job again before the second. The same claim's is that, or
-- whole hours later: see `refresh_locks.sql`.
--
-- The lines marked `careful` step over rows that an open transaction holds, such as one that has
-- enqueued a running job's key again: one of them must not hold up all others. They cost 2.5 µs
-- for each job, so they are left out until a statement has waited too long (lock_timeout).
with
held as materialized ( -- careful
    select id from :schema._private_jobs -- careful
    where id = any (%(ids)s::bigint[]) and locked_by = %(pool_id)s -- careful
    for update skip locked -- careful
), -- careful
returned as (
    update :schema._private_jobs as job
    set attempts = greatest(0, job.attempts - 1),
        last_error = coalesce(given.message, job.last_error),
        locked_by = null,
        locked_at = null
    from unnest(%(ids)s::bigint[], %(locked_at)s::timestamptz[], %(messages)s::text[]) as given (id, locked_at, message)
    where job.id = given.id and job.locked_by = %(pool_id)s
      and mod(extract(epoch from job.locked_at - given.locked_at)::numeric, 3600) = 0
      and job.id in (select id from held) -- careful
    returning job.id, job.job_queue_id
),
freed as (
    update :schema._private_job_queues as queue
    set locked_by = null, locked_at = null
    from returned
    where queue.id = returned.job_queue_id and queue.locked_by = %(pool_id)s
)
select
    lost.id,
    exists (
        select from :schema._private_jobs as job
        where job.id = lost.id and job.locked_by = %(pool_id)s
          and mod(extract(epoch from job.locked_at - lost.locked_at)::numeric, 3600) = 0
    ) as is_busy
from unnest(%(ids)s::bigint[], %(locked_at)s::timestamptz[]) as lost (id, locked_at)
where not exists (select from returned where returned.id = lost.id)
