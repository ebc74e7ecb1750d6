-- Counts every job once, in one pass and one snapshot: in all, by task, by named queue and by who
-- holds it. The four states exclude each other, and every job is in one of them.
with counted as (
    select
        grouping(task_id, job_queue_id, locked_by) as level,
        task_id,
        job_queue_id,
        locked_by,
        count(*) filter (where is_available and run_at <= now()) as ready,
        count(*) filter (where is_available and run_at > now()) as scheduled,
        count(*) filter (where locked_at is not null) as running,
        count(*) filter (where locked_at is null and attempts >= max_attempts) as failed,
        min(run_at) filter (where is_available and run_at <= now()) as oldest_ready,
        min(locked_at) as since
    from :schema._private_jobs
    group by grouping sets ((), (task_id), (job_queue_id), (locked_by))
),
held_queues as (
    select locked_by, count(*) as queues, min(locked_at) as since
    from :schema._private_job_queues
    where locked_at is not null
    group by locked_by
),
holders as (
    select locked_by, running, since from counted where level = 6 and running > 0
)
select
    'all' as kind, null as name, ready, scheduled, running, failed,
    now() - oldest_ready as oldest_ready,
    null as locked_by, null::bigint as queues, null::timestamptz as since
from counted
where level = 7
union all
select
    'task', coalesce(task.identifier, format('(deleted task %%s)', task_id)),
    ready, scheduled, running, failed, now() - oldest_ready, null, null, null
from counted
left join :schema._private_tasks as task on task.id = task_id
where level = 3
union all
select
    'queue', coalesce(queue.queue_name, format('(deleted queue %%s)', job_queue_id)),
    ready, scheduled, running, failed, now() - oldest_ready, queue.locked_by, null, null
from counted
left join :schema._private_job_queues as queue on queue.id = job_queue_id
where level = 5 and job_queue_id is not null
union all
select
    'worker', coalesce(holders.locked_by, held_queues.locked_by, '(nobody)'),
    0, 0, coalesce(running, 0), 0, null, null,
    coalesce(queues, 0), least(holders.since, held_queues.since)
from holders
full join held_queues on held_queues.locked_by = holders.locked_by
order by kind, name
