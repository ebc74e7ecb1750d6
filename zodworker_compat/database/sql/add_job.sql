-- The function's own inserts are newer than this statement's snapshot, so a task or queue that
-- it has just made is not found by the joins: then it is the one that was asked for.
select
    :job_columns,
    coalesce(task.identifier, %(identifier)s::text) as task_identifier,
    case when job.job_queue_id is not null then coalesce(queue.queue_name, %(queue_name)s::text) end as queue_name
from :schema.add_job(
    identifier => %(identifier)s::text,
    payload => %(payload)s::json,
    queue_name => %(queue_name)s::text,
    run_at => %(run_at)s::timestamptz,
    max_attempts => %(max_attempts)s::integer,
    job_key => %(job_key)s::text,
    priority => %(priority)s::integer,
    flags => %(flags)s::text[],
    job_key_mode => %(job_key_mode)s::text
) as job
left join :schema._private_tasks as task on task.id = job.task_id
left join :schema._private_job_queues as queue on queue.id = job.job_queue_id
