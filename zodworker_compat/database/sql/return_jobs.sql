-- Gives back the jobs `ids` that `pool_id` still holds as if they had not been claimed: the
-- attempt is not counted. A message, where there is one, says why in `last_error`.
-- Returns the ids that it did not hold any more.
with returned as (
    update :schema._private_jobs as job
    set attempts = greatest(0, job.attempts - 1),
        last_error = coalesce(given.message, job.last_error),
        locked_by = null,
        locked_at = null
    from unnest(%(ids)s::bigint[], %(messages)s::text[]) as given (id, message)
    where job.id = given.id and job.locked_by = %(pool_id)s
    returning job.id, job.job_queue_id
),
freed as (
    update :schema._private_job_queues as queue
    set locked_by = null, locked_at = null
    from returned
    where queue.id = returned.job_queue_id and queue.locked_by = %(pool_id)s
)
select lost.id
from unnest(%(ids)s::bigint[]) as lost (id)
where not exists (select from returned where returned.id = lost.id)
