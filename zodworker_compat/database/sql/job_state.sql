case
        when job.locked_at is not null then 'running'
        when job.attempts >= job.max_attempts then 'failed'
        when job.run_at <= now() then 'ready'
        when job.attempts = 0 then 'scheduled'
        else 'retrying'
    end
