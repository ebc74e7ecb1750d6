-- Deletes the jobs `ids` that `pool_id` still holds and frees their queues.
-- Returns the ids that were not settled: `is_busy` if the job is still the pool's, and locked by
-- an open transaction; else it was not the pool's any more, and its result changed nothing.
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
done as (
    delete from :schema._private_jobs
    where id = any (%(ids)s::bigint[]) and locked_by = %(pool_id)s
      and id in (select id from held) -- careful
    returning id, job_queue_id
),
freed as (
    update :schema._private_job_queues as queue
    set locked_by = null, locked_at = null
    from done
    where queue.id = done.job_queue_id and queue.locked_by = %(pool_id)s
)
select
    lost.id,
    exists (
        select from :schema._private_jobs as job
        where job.id = lost.id and job.locked_by = %(pool_id)s
    ) as is_busy
from unnest(%(ids)s::bigint[]) as lost (id)
where not exists (select from done where done.id = lost.id)
