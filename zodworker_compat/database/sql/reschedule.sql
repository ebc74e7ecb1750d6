-- Puts a job back as a new one, if `pool_id` still holds it: new id, no attempts used, at most the
-- attempts that were left. All else is as the row has it now: a job that lost its key while it was
-- running to a newer job, or to `remove_job`, comes back without one, and for a single attempt.
-- Returns the new id, or no row if the job was not ours any more.
with moved as (
    delete from :schema._private_jobs
    where id = %(job_id)s and locked_by = %(pool_id)s
    returning *
),
freed as (
    update :schema._private_job_queues as queue
    set locked_by = null, locked_at = null
    from moved
    where queue.id = moved.job_queue_id and queue.locked_by = %(pool_id)s
)
select added.id
from moved
join :schema._private_tasks as task on task.id = moved.task_id
left join :schema._private_job_queues as queue on queue.id = moved.job_queue_id
cross join :schema.add_job(
    identifier => task.identifier,
    payload => %(payload)s::json,
    queue_name => queue.queue_name,
    run_at => moved.run_at,
    max_attempts => greatest(1, moved.max_attempts - (moved.attempts - 1)),
    job_key => moved.key,
    priority => moved.priority::integer,
    flags => array(
        select jsonb_object_keys(case jsonb_typeof(moved.flags) when 'object' then moved.flags end)
    ),
    -- the mode for a key that nobody else has; `unsafe_dedupe` would keep the job that is leaving
    job_key_mode => 'replace'
) as added
