-- Deletes the jobs `ids` that `pool_id` still holds and frees their queues.
-- Returns the ids that it did not hold any more: their result changed nothing.
with done as (
    delete from :schema._private_jobs
    where id = any (%(ids)s::bigint[]) and locked_by = %(pool_id)s
    returning id, job_queue_id
),
freed as (
    update :schema._private_job_queues as queue
    set locked_by = null, locked_at = null
    from done
    where queue.id = done.job_queue_id and queue.locked_by = %(pool_id)s
)
select lost.id
from unnest(%(ids)s::bigint[]) as lost (id)
where not exists (select from done where done.id = lost.id)
