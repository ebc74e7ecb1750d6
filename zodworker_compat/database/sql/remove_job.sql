select
    job.id,
    job.payload::text as payload,
    job.priority,
    job.run_at,
    job.attempts,
    job.max_attempts,
    job.last_error,
    job.created_at,
    job.updated_at,
    job.key,
    job.locked_at,
    job.locked_by,
    job.revision,
    job.flags::text as flags,
    job.job_queue_id,
    job.task_id,
    job.is_available,
    coalesce(task.identifier, '') as task_identifier,
    queue.queue_name
from :schema.remove_job(%(job_key)s::text) as job
left join :schema._private_tasks as task on task.id = job.task_id
left join :schema._private_job_queues as queue on queue.id = job.job_queue_id
