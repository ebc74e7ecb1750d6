-- What one job waits for, besides its own row: who else is in its queue, and who is before it.
select
    array(
        select other.id
        from :schema._private_jobs as other
        where other.job_queue_id = job.job_queue_id and other.locked_at is not null
          and other.id <> job.id
        limit 10
    ) as running_in_queue,
    (
        select count(*)
        from (
            select
            from :schema._private_jobs as other
            where other.is_available and other.run_at <= now()
              and (other.priority, other.run_at) < (job.priority, job.run_at)
            limit %(most_ahead)s::bigint
        ) as ahead
    ) as ahead
from :schema._private_jobs as job
where job.id = %(id)s::bigint
