-- Writes the failures of the jobs `ids` that `pool_id` still holds, postpones them by `delays`
-- seconds, or where that is null by exp(min(attempts, 10)) seconds, as graphile-worker 0.16.6,
-- and frees them and their queues (exp() of much less than -99 is an error of PostgreSQL). A `permanent` failure uses up all attempts.
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
failed as (
    update :schema._private_jobs as job
    set last_error = failure.message,
        run_at = greatest(now(), job.run_at)
            + coalesce(failure.delay, exp(greatest(-99, least(job.attempts, 10))::float8)) * interval '1 second',
        attempts = case when failure.permanent then job.max_attempts else job.attempts end,
        locked_by = null,
        locked_at = null
    from unnest(
        %(ids)s::bigint[], %(locked_at)s::timestamptz[], %(messages)s::text[], %(delays)s::float8[], %(permanent)s::boolean[]
    ) as failure (id, locked_at, message, delay, permanent)
    where job.id = failure.id and job.locked_by = %(pool_id)s
      and mod(extract(epoch from job.locked_at - failure.locked_at)::numeric, 3600) = 0
      and job.id in (select id from held) -- careful
    returning job.id, job.job_queue_id
),
freed as (
    update :schema._private_job_queues as queue
    set locked_by = null, locked_at = null
    from failed
    where queue.id = failed.job_queue_id and queue.locked_by = %(pool_id)s
)
select
    lost.id,
    exists (
        select from :schema._private_jobs as job
        where job.id = lost.id and job.locked_by = %(pool_id)s
          and mod(extract(epoch from job.locked_at - lost.locked_at)::numeric, 3600) = 0
    ) as is_busy
from unnest(%(ids)s::bigint[], %(locked_at)s::timestamptz[]) as lost (id, locked_at)
where not exists (select from failed where failed.id = lost.id)
