on conflict (key) do update
set
    job_queue_id = excluded.job_queue_id,
    task_id = excluded.task_id,
    payload = case
        when json_typeof(job.payload) = 'array' and json_typeof(excluded.payload) = 'array'
        then (job.payload::jsonb || excluded.payload::jsonb)::json
        else excluded.payload
    end,
    priority = excluded.priority,
    run_at = case
        when %(preserve_run_at)s::boolean and job.attempts = 0 then job.run_at
        else excluded.run_at
    end,
    attempts = 0,
    max_attempts = excluded.max_attempts,
    last_error = null,
    updated_at = now(),
    revision = job.revision + 1,
    flags = excluded.flags
where job.is_available
