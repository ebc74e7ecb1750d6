select
    :job_columns,
    coalesce(task.identifier, '') as task_identifier,
    queue.queue_name
from :schema.remove_job(%(job_key)s::text) as job
left join :schema._private_tasks as task on task.id = job.task_id
left join :schema._private_job_queues as queue on queue.id = job.job_queue_id
