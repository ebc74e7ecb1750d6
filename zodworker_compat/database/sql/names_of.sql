select 'task' as kind, id, identifier as name
from :schema._private_tasks
where id = any(%(task_ids)s::integer[])
union all
select 'queue' as kind, id, queue_name as name
from :schema._private_job_queues
where id = any(%(queue_ids)s::integer[])
