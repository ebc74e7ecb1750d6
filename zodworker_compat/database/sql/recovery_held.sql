-- The jobs that dead pools hold. A pool starts its jobs in the order in which it claimed them, and
-- runs `concurrency` of them at a time: the others have most likely waited in its memory.
select
    job.id,
    job.locked_by as pool_id,
    row_number() over (
        partition by job.locked_by order by job.locked_at, job.priority, job.run_at, job.id
    ) > worker.concurrency as has_waited
from :schema._private_jobs as job
join :schema.zodworker_workers as worker on worker.pool_id = job.locked_by
where job.locked_by = any (%(pool_ids)s::text[])
