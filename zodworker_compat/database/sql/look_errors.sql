-- The most frequent errors of jobs that failed or wait for a retry.
select
    coalesce(task.identifier, format('(deleted task %%s)', task_id)) as task_identifier,
    error, jobs, failed
from (
    select
        job.task_id,
        left(split_part(job.last_error, E'\n', 1), 200) as error,
        count(*) as jobs,
        count(*) filter (where job.attempts >= job.max_attempts) as failed
    from :schema._private_jobs as job
    where job.last_error is not null and job.locked_at is null
      and (job.attempts >= job.max_attempts or job.run_at > now())
    group by 1, 2
    order by jobs desc, 1, 2
    limit %(limit)s::bigint
) as counted
left join :schema._private_tasks as task on task.id = task_id
order by jobs desc, 1, 2
