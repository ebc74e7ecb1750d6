select identifier || ' ' || coalesce(payload ->> 'id', key), last_error
from :queue._private_jobs
join :queue._private_tasks on _private_tasks.id = task_id
where attempts >= max_attempts and locked_at is null;
