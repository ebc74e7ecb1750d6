-- Counts every job once, in one pass and one snapshot: in all, by task, by named queue and by who
-- holds it. The five states exclude each other, and every job is in one of them. Of the queues, the
-- `queues` that most need a look are returned: locked ones with ready jobs behind them first.
with counted as materialized (
    select
        grouping(task_id, job_queue_id, locked_by) as level,
        task_id,
        job_queue_id,
        locked_by,
        count(*) filter (where is_available and run_at <= now()) as ready,
        count(*) filter (where is_available and run_at > now() and attempts = 0) as scheduled,
        count(*) filter (where is_available and run_at > now() and attempts <> 0) as retrying,
        count(*) filter (where locked_at is not null) as running,
        count(*) filter (where locked_at is null and attempts >= max_attempts) as failed,
        -- no difference to -infinity can be had
        min(greatest(run_at, timestamptz '0001-01-02 00:00:00Z'))
            filter (where is_available and run_at <= now()) as oldest_ready,
        min(run_at) filter (where is_available and run_at > now()) as next_due,
        min(locked_at) as since
    from :schema._private_jobs
    tablesample system (%(percent)s::real) repeatable (0) -- sampled
    group by grouping sets ((), (task_id), (job_queue_id), (locked_by))
),
queues as materialized (
    select
        coalesce(queue.queue_name, format('(deleted queue %%s)', job_queue_id)) as queue_name,
        ready, scheduled, retrying, running, failed, oldest_ready, next_due,
        queue.locked_by, queue.locked_at
    from (select * from counted where level = 5 and job_queue_id is not null) as counted
    full join (
        select * from :schema._private_job_queues where locked_at is not null
    ) as locked on locked.id = job_queue_id
    left join :schema._private_job_queues as queue on queue.id = coalesce(job_queue_id, locked.id)
),
shown as (
    select *, row_number() over (
        order by
            (locked_at is not null and coalesce(ready, 0) > 0) desc, coalesce(ready, 0) desc,
            locked_at is not null desc, coalesce(failed, 0) desc, queue_name
    ) as place
    from queues
    where (%(queue_names)s::text[] is null or queue_name = any (%(queue_names)s::text[]))
      and (not %(only_locked)s::boolean or locked_at is not null)
    order by place
    limit %(queues)s::bigint
),
holders as (
    select locked_by, running, since from counted where level = 6 and running > 0
),
held_queues as (
    select locked_by, count(*) as queues, min(locked_at) as since
    from :schema._private_job_queues
    where locked_at is not null
    group by locked_by
)
select
    'all' as kind, null as name, ready, scheduled, retrying, running, failed,
    now() - oldest_ready as oldest_ready, next_due, null as locked_by, since,
    (select count(*) from queues) as queues,
    (select coalesce(sum(ready), 0)::bigint from queues where locked_at is not null) as blocked,
    null::bigint as place
from counted
where level = 7
union all
select
    'task', coalesce(task.identifier, format('(deleted task %%s)', task_id)),
    ready, scheduled, retrying, running, failed, now() - oldest_ready, next_due, null, null, null, null, null
from counted
left join :schema._private_tasks as task on task.id = task_id
where level = 3
union all
select
    'queue', queue_name,
    coalesce(ready, 0), coalesce(scheduled, 0), coalesce(retrying, 0), coalesce(running, 0),
    coalesce(failed, 0), now() - oldest_ready, next_due, locked_by, locked_at, null, null, place
from shown
union all
select
    'worker', coalesce(holders.locked_by, held_queues.locked_by, '(nobody)'),
    0, 0, 0, coalesce(running, 0), 0, null, null,
    null, least(holders.since, held_queues.since), coalesce(queues, 0), null, null
from holders
full join held_queues on held_queues.locked_by = holders.locked_by
order by kind, place, name
