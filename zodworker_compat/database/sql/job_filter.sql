-- The conditions of a `JobFilter` on the row `job`. Statements with it are planned with the values
-- at hand, so that what is null falls away, and an index serves what is left.
    (%(ids)s::bigint[] is null or job.id = any (%(ids)s::bigint[]))
    and (%(keys)s::text[] is null or job.key = any (%(keys)s::text[]))
    and (%(tasks)s::text[] is null or job.task_id = any (array(
        select id from :schema._private_tasks where identifier = any (%(tasks)s::text[])
    )))
    and (%(queues)s::text[] is null or job.job_queue_id = any (array(
        select id from :schema._private_job_queues where queue_name = any (%(queues)s::text[])
    )))
    and (%(locked_by)s::text[] is null or job.locked_by = any (%(locked_by)s::text[]))
    and (%(locked_for)s::interval is null or job.locked_at <= now() - %(locked_for)s::interval)
    and (%(older_than)s::interval is null or job.created_at <= now() - %(older_than)s::interval)
    and (%(newer_than)s::interval is null or job.created_at > now() - %(newer_than)s::interval)
    and (%(due_before)s::timestamptz is null or job.run_at < %(due_before)s::timestamptz)
    and (%(error)s::text is null or position(lower(%(error)s::text) in lower(job.last_error)) > 0)
    -- as `job_state.sql`, in terms that the planner knows how to estimate, and to find an index for
    and (
        %(states)s::text[] is null
        or ('ready' = any (%(states)s::text[]) and job.is_available and job.run_at <= now())
        or ('scheduled' = any (%(states)s::text[])
            and job.is_available and job.run_at > now() and job.attempts = 0)
        or ('retrying' = any (%(states)s::text[])
            and job.is_available and job.run_at > now() and job.attempts <> 0)
        or ('running' = any (%(states)s::text[]) and job.locked_at is not null)
        or ('failed' = any (%(states)s::text[])
            and job.locked_at is null and job.attempts >= job.max_attempts)
    )
