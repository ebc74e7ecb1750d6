-- The rest is known: it is what was asked for. A key may have found a job that was there.
job.id,
    job.task_id,
    job.job_queue_id,
    job.created_at,
    job.updated_at, -- keyed
    job.run_at, -- keyed
    job.revision, -- keyed
    case when job.revision > 0 then job.payload::text end as payload, -- keyed
    job.key, -- keyed
