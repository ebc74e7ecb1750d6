-- The ready jobs that workers take first, of each priority, by task and by named queue: what has waited
-- longest is among them, however large the table is. Reads the index of the ready jobs alone.
with recursive priorities (priority, place) as (
    (
        select priority, 1
        from :schema._private_jobs
        where is_available
        order by priority
        limit 1
    )
    union all
    select
        (
            select job.priority
            from :schema._private_jobs as job
            where job.is_available and job.priority > priorities.priority
            order by job.priority
            limit 1
        ),
        place + 1
    from priorities
    where priorities.priority is not null and place < %(priorities)s::integer
)
select
    case grouping(task_id, job_queue_id) when 3 then 'all' when 1 then 'task' else 'queue' end as kind,
    case grouping(task_id, job_queue_id)
        when 1 then coalesce(
            (select identifier from :schema._private_tasks where id = task_id),
            format('(deleted task %%s)', task_id)
        )
        when 2 then coalesce(
            (select queue_name from :schema._private_job_queues where id = job_queue_id),
            format('(deleted queue %%s)', job_queue_id)
        )
    end as name,
    count(*) as ready,
    now() - min(greatest(run_at, timestamptz '0001-01-02 00:00:00Z')) as oldest_ready
from priorities
cross join lateral (
    select task_id, job_queue_id, run_at
    from :schema._private_jobs as job
    where job.is_available and job.priority = priorities.priority and job.run_at <= now()
    order by job.run_at
    limit %(jobs)s::bigint
) as head
group by grouping sets ((), (task_id), (job_queue_id))
having count(*) > 0
