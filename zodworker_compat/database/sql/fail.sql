-- Writes the failures of the jobs `ids` that `pool_id` still holds, postpones them by
-- exp(min(attempts, 10)) seconds, as graphile-worker 0.16.6, and frees them and their queues.
-- Returns the ids that it did not hold any more: their result changed nothing.
with failed as (
    update :schema._private_jobs as job
    set last_error = failure.message,
        run_at = greatest(now(), job.run_at) + exp(least(job.attempts, 10)) * interval '1 second',
        locked_by = null,
        locked_at = null
    from unnest(%(ids)s::bigint[], %(messages)s::text[]) as failure (id, message)
    where job.id = failure.id and job.locked_by = %(pool_id)s
    returning job.id, job.job_queue_id
),
freed as (
    update :schema._private_job_queues as queue
    set locked_by = null, locked_at = null
    from failed
    where queue.id = failed.job_queue_id and queue.locked_by = %(pool_id)s
)
select lost.id
from unnest(%(ids)s::bigint[]) as lost (id)
where not exists (select from failed where failed.id = lost.id)
