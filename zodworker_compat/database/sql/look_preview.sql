-- How many jobs of each task an act would change, and which it would leave alone because a worker
-- holds them: for less than four hours, as graphile-worker's functions have it.
select
    coalesce(task.identifier, format('(deleted task %%s)', task_id)) as task_identifier,
    locked_by, jobs, since, ids
from (
    select
        job.task_id,
        case when job.locked_at >= now() - interval '4 hours'
            then coalesce(job.locked_by, '(nobody)') end as locked_by,
        count(*) as jobs,
        min(job.locked_at) as since,
        case when %(ids)s::bigint[] is not null then array_agg(job.id) end as ids
    from :schema._private_jobs as job
    where :job_filter
    group by 1, 2
) as counted
left join :schema._private_tasks as task on task.id = task_id
order by jobs desc, 1
