-- One page of jobs, in one of the orders of `JobSort`. What does not belong to the given order is
-- constant when the statement is planned, and falls away: by id the primary key is read, by "next"
-- the index that workers claim by.
with page as materialized (
    select job.*, :job_state as state
    from :schema._private_jobs as job
    where :job_filter
      and (%(after_id)s::bigint is null or case %(sort)s::text
          when 'newest' then job.id < %(after_id)s::bigint
          when 'next' then (job.priority, job.run_at, job.id)
              > (%(after_priority)s::smallint, %(after_time)s::timestamptz, %(after_id)s::bigint)
          when 'due' then (job.run_at, job.id)
              > (%(after_time)s::timestamptz, %(after_id)s::bigint)
          when 'locked' then (job.locked_at, job.id)
              > (%(after_time)s::timestamptz, %(after_id)s::bigint)
          else job.id > %(after_id)s::bigint
      end)
      and (%(sort)s::text <> 'locked' or job.locked_at is not null)
      and (%(sort)s::text <> 'next' or job.is_available)
    order by
        case when %(sort)s::text = 'newest' then job.id end desc,
        case when %(sort)s::text = 'next' then job.priority end,
        case %(sort)s::text
            when 'next' then job.run_at
            when 'due' then job.run_at
            when 'locked' then job.locked_at
        end,
        job.id
    limit %(limit)s::bigint
)
select
    :job_columns,
    coalesce(task.identifier, format('(deleted task %%s)', job.task_id)) as task_identifier,
    coalesce(queue.queue_name, '(deleted queue ' || job.job_queue_id || ')') as queue_name,
    job.state,
    queue.locked_by as queue_locked_by,
    queue.locked_at as queue_locked_at,
    now() as read_at,
    -- as text: Python knows no infinity
    case %(sort)s::text
        when 'next' then job.run_at
        when 'due' then job.run_at
        when 'locked' then job.locked_at
    end::text as position
from page as job
left join :schema._private_tasks as task on task.id = job.task_id
left join :schema._private_job_queues as queue on queue.id = job.job_queue_id
order by
    case when %(sort)s::text = 'newest' then job.id end desc,
    case when %(sort)s::text = 'next' then job.priority end,
    case %(sort)s::text
        when 'next' then job.run_at
        when 'due' then job.run_at
        when 'locked' then job.locked_at
    end,
    job.id
