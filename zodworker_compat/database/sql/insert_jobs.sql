-- `insert_job` for a batch: as many rows as jobs, or none if a name is new or there is a trigger;
-- only jobs whose keys are not available are missing. Keyed rows come first, in the order in which
-- `add_jobs` locks them too, then the others in the order of their specs.
--
-- The payloads are an array of their own: its elements are stored as they are written, `\u0000`
-- included, and the server reads them once. Names are places in the lists of names: nothing is
-- joined or sorted then, which would be a third of the time. Options that all jobs have in common
-- are `shared`, and `options` is empty.
with names as materialized (
    select
        array(
            select task.id
            from unnest(%(identifiers)s::text[]) with ordinality as name (identifier, place)
            join :schema._private_tasks as task using (identifier)
            order by place
        ) as task_ids,
        array(
            select queue.id
            from unnest(%(queue_names)s::text[]) with ordinality as name (queue_name, place)
            join :schema._private_job_queues as queue using (queue_name)
            order by place
        ) as queue_ids
)
insert into :schema._private_jobs as job
    (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
select
    names.queue_ids[coalesce(spec.queue, shared.queue)],
    names.task_ids[coalesce(spec.task, shared.task)],
    spec.payload,
    coalesce(spec.run_at, shared.run_at, now()),
    coalesce(spec.max_attempts, shared.max_attempts, 25),
    coalesce(spec.job_key, shared.job_key),
    coalesce(spec.priority, shared.priority, 0),
    case
        when coalesce(spec.flags, shared.flags) is not null
        then (
            select jsonb_object_agg(flag, true)
            from unnest(coalesce(spec.flags, shared.flags)) as flag
        )
    end
from names
cross join json_to_record(%(shared)s::json) as shared (
    task integer, queue integer, run_at timestamptz, max_attempts smallint,
    job_key text, priority smallint, flags text[]
)
cross join rows from (
    json_array_elements(%(payloads)s::json),
    json_to_recordset(%(options)s::json) as (
        task integer, queue integer, run_at timestamptz, max_attempts smallint,
        job_key text, priority smallint, flags text[]
    )
) with ordinality as spec (
    payload, task, queue, run_at, max_attempts, job_key, priority, flags, position
)
where cardinality(names.task_ids) = cardinality(%(identifiers)s::text[])
  and cardinality(names.queue_ids) = cardinality(%(queue_names)s::text[])
  and not exists (
    select from pg_trigger
    where tgrelid = ':schema._private_jobs'::regclass and not tgisinternal
  )
order by spec.job_key, spec.position -- keyed
:job_update -- keyed
returning
    :job_added
    (select pg_notify('jobs:insert', '{"r":' || random() || ',"count":' || %(count)s::integer || '}'))
