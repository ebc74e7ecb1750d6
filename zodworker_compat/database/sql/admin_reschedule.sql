-- A job whose lock is older than four hours counts as unlocked. Its named queue was locked with it
-- and is freed here, as in `admin_complete.sql`; the job's own lock is left to the sweep, because
-- one statement cannot change a row twice.
with changed as materialized (
    select * from :schema.reschedule_jobs(
        job_ids => %(ids)s::bigint[],
        run_at => %(run_at)s::timestamptz,
        priority => %(priority)s::integer,
        attempts => %(attempts)s::integer,
        max_attempts => %(max_attempts)s::integer
    )
),
freed as (
    update :schema._private_job_queues as queue
    set locked_by = null, locked_at = null
    from changed
    where queue.id = changed.job_queue_id
      and queue.locked_by = changed.locked_by
      and queue.locked_at < now() - interval '4 hours'
)
select
    :job_columns,
    coalesce(task.identifier, '') as task_identifier,
    queue.queue_name
from changed as job
left join :schema._private_tasks as task on task.id = job.task_id
left join :schema._private_job_queues as queue on queue.id = job.job_queue_id
order by job.id
