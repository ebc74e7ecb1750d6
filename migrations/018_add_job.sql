-- add_job, add_jobs, remove_job. Each statement of them sees what was committed before it began
-- (READ COMMITTED); under REPEATABLE READ a clash with a later commit raises 40001 instead.

create function :schema.add_job(
    identifier text,
    payload json default null,
    queue_name text default null,
    run_at timestamptz default null,
    max_attempts integer default null,
    job_key text default null,
    priority integer default null,
    flags text[] default null,
    job_key_mode text default 'replace'
)
returns :schema._private_jobs
language plpgsql
as $graphile_worker_body$
declare
    v_task_id integer;
    v_queue_id integer;
    v_flags jsonb;
    v_job :schema._private_jobs;
begin
    if job_key is not null
        and job_key_mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe')
    then
        raise exception using
            errcode = 'GWBKM',
            message = 'Invalid job_key_mode value, expected ''replace'', ''preserve_run_at'' or ''unsafe_dedupe''.';
    end if;

    -- Nearly always the task and the queue are known: a look-up costs less than an upsert. One
    -- that another session has just committed is missed once and found by the next turn.
    loop
        select tasks.id into v_task_id
        from :schema._private_tasks as tasks
        where tasks.identifier = add_job.identifier;
        exit when found;

        insert into :schema._private_tasks as tasks (identifier)
        values (add_job.identifier)
        on conflict do nothing
        returning tasks.id into v_task_id;
        exit when found;
    end loop;

    while queue_name is not null loop
        select job_queues.id into v_queue_id
        from :schema._private_job_queues as job_queues
        where job_queues.queue_name = add_job.queue_name;
        exit when found;

        insert into :schema._private_job_queues as job_queues (queue_name)
        values (add_job.queue_name)
        on conflict do nothing
        returning job_queues.id into v_queue_id;
        exit when found;
    end loop;

    if flags is not null then
        v_flags := (select pg_catalog.jsonb_object_agg(flag, true) from unnest(add_job.flags) as flag);
    end if;

    payload := coalesce(payload, '{}'::json);
    run_at := coalesce(run_at, now());
    max_attempts := coalesce(max_attempts, 25);
    priority := coalesce(priority, 0);

    if job_key is null then
        insert into :schema._private_jobs as jobs
            (job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
        values (
            v_queue_id, v_task_id, add_job.payload, add_job.run_at, add_job.max_attempts,
            add_job.priority, v_flags
        )
        returning jobs.* into v_job;

    elsif job_key_mode = 'unsafe_dedupe' then
        insert into :schema._private_jobs as jobs
            (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
        values (
            v_queue_id, v_task_id, add_job.payload, add_job.run_at, add_job.max_attempts,
            add_job.job_key, add_job.priority, v_flags
        )
        on conflict (key) do update
        set revision = jobs.revision + 1, updated_at = now()
        returning jobs.* into v_job;

        if v_job.revision > 0 then
            return v_job;
        end if;

    else
        -- The upsert waits for whoever is claiming the job of this key and locks the job, also when
        -- the job turns out to be unavailable and is not written: so nobody can come in between.
        for v_turn in 1 .. 2 loop
            insert into :schema._private_jobs as jobs
                (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
            values (
                v_queue_id, v_task_id, add_job.payload, add_job.run_at, add_job.max_attempts,
                add_job.job_key, add_job.priority, v_flags
            )
            on conflict (key) do update
            set job_queue_id = excluded.job_queue_id,
                task_id = excluded.task_id,
                payload = case
                    when json_typeof(jobs.payload) = 'array' and json_typeof(excluded.payload) = 'array'
                    then (jobs.payload::jsonb || excluded.payload::jsonb)::json
                    else excluded.payload
                end,
                priority = excluded.priority,
                run_at = case
                    when add_job.job_key_mode = 'preserve_run_at' and jobs.attempts = 0
                    then jobs.run_at
                    else excluded.run_at
                end,
                attempts = 0,
                max_attempts = excluded.max_attempts,
                last_error = null,
                updated_at = now(),
                revision = jobs.revision + 1,
                flags = excluded.flags
            where jobs.is_available
            returning jobs.* into v_job;
            exit when found;

            update :schema._private_jobs as jobs
            set key = null, attempts = jobs.max_attempts, updated_at = now()
            where jobs.key = add_job.job_key;
        end loop;
    end if;

    if v_job.id is null then
        raise exception 'A trigger on _private_jobs kept a job of task "%" from being written.', identifier;
    end if;

    -- Without a number of its own, a second notification of the same transaction would be dropped.
    perform pg_notify('jobs:insert', '{"r":' || random() || ',"count":1}');
    return v_job;
end;
$graphile_worker_body$;

-- Returns the jobs in the order of their specs, because Node's addJobs() takes row i for spec i.
create function :schema.add_jobs(
    specs :schema.job_spec[],
    job_key_preserve_run_at boolean default false
)
returns setof :schema._private_jobs
language plpgsql
as $graphile_worker_body$
declare
    v_left :schema.job_spec[] := specs;
    v_unkeyed bigint[] := array(
        select spec.ordinality
        from unnest(specs) with ordinality as spec
        where spec.job_key is null
        order by spec.ordinality
    );
    v_jobs :schema._private_jobs[] := '{}';
begin
    -- No specs make a NULL, which notifies with an empty payload.
    perform pg_notify(
        'jobs:insert', '{"r":' || random() || ',"count":' || nullif(cardinality(specs), 0) || '}'
    );

    -- In one order, so that two sessions that add the same names do not deadlock.
    insert into :schema._private_tasks (identifier)
    select distinct spec.identifier
    from unnest(specs) as spec
    where not exists (
        select from :schema._private_tasks as tasks where tasks.identifier = spec.identifier
    )
    order by spec.identifier
    on conflict do nothing;

    insert into :schema._private_job_queues (queue_name)
    select distinct spec.queue_name
    from unnest(specs) as spec
    where spec.queue_name is not null and not exists (
        select from :schema._private_job_queues as job_queues
        where job_queues.queue_name = spec.queue_name
    )
    order by spec.queue_name
    on conflict do nothing;

    if cardinality(v_unkeyed) = cardinality(specs) then
        return query
        insert into :schema._private_jobs as jobs
            (job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
        select
            job_queues.id,
            tasks.id,
            coalesce(spec.payload, '{}'::json),
            coalesce(spec.run_at, now()),
            coalesce(spec.max_attempts, 25),
            coalesce(spec.priority, 0),
            case
                when spec.flags is not null
                then (select pg_catalog.jsonb_object_agg(flag, true) from unnest(spec.flags) as flag)
            end
        from unnest(specs) with ordinality as spec
        -- not an inner join: a task that is deleted at this moment must fail, not drop its jobs
        left join :schema._private_tasks as tasks on tasks.identifier = spec.identifier
        left join :schema._private_job_queues as job_queues
            on job_queues.queue_name = spec.queue_name
        order by spec.ordinality
        returning jobs.*;
        return;
    end if;

    -- Two turns as in add_job. The keys are locked in one order; that keeps batches from
    -- deadlocking, and makes the ids of jobs without a key rise with their specs.
    for v_turn in 1 .. 2 loop
        with written as (
            insert into :schema._private_jobs as jobs
                (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
            select
                job_queues.id,
                tasks.id,
                coalesce(spec.payload, '{}'::json),
                coalesce(spec.run_at, now()),
                coalesce(spec.max_attempts, 25),
                spec.job_key,
                coalesce(spec.priority, 0),
                case
                    when spec.flags is not null
                    then (select pg_catalog.jsonb_object_agg(flag, true) from unnest(spec.flags) as flag)
                end
            from unnest(v_left) with ordinality as spec
            -- not an inner join: a task that is deleted at this moment must fail, not drop its jobs
            left join :schema._private_tasks as tasks on tasks.identifier = spec.identifier
            left join :schema._private_job_queues as job_queues
                on job_queues.queue_name = spec.queue_name
            order by spec.job_key, spec.ordinality
            on conflict (key) do update
            set job_queue_id = excluded.job_queue_id,
                task_id = excluded.task_id,
                payload = case
                    when json_typeof(jobs.payload) = 'array' and json_typeof(excluded.payload) = 'array'
                    then (jobs.payload::jsonb || excluded.payload::jsonb)::json
                    else excluded.payload
                end,
                priority = excluded.priority,
                run_at = case
                    when add_jobs.job_key_preserve_run_at and jobs.attempts = 0
                    then jobs.run_at
                    else excluded.run_at
                end,
                attempts = 0,
                max_attempts = excluded.max_attempts,
                last_error = null,
                updated_at = now(),
                revision = jobs.revision + 1,
                flags = excluded.flags
            where jobs.is_available
            returning jobs as job
        )
        select v_jobs || array_agg(written.job) into v_jobs
        from written;
        exit when cardinality(v_jobs) = cardinality(specs);

        v_left := array(
            select spec
            from unnest(v_left) as spec
            where spec.job_key is not null
              and not exists (select from unnest(v_jobs) as job where job.key = spec.job_key)
        );

        update :schema._private_jobs as jobs
        set key = null, attempts = jobs.max_attempts, updated_at = now()
        from unnest(v_left) as spec
        where jobs.key = spec.job_key;
    end loop;

    if cardinality(v_jobs) < cardinality(specs) then
        raise exception 'A trigger on _private_jobs kept % of % jobs from being written.',
            cardinality(specs) - cardinality(v_jobs), cardinality(specs);
    end if;

    return query
    select job.*
    from unnest(v_jobs) as job
    left join unnest(specs) with ordinality as spec on spec.job_key = job.key
    order by coalesce(
        spec.ordinality,
        v_unkeyed[row_number() over (partition by job.key is null order by job.id)]
    );
end;
$graphile_worker_body$;

create function :schema.remove_job(job_key text)
returns :schema._private_jobs
language plpgsql
strict
as $graphile_worker_body$
declare
    v_job :schema._private_jobs;
begin
    delete from :schema._private_jobs as jobs
    where jobs.key = remove_job.job_key
      and (jobs.locked_at is null or jobs.locked_at < now() - interval '4 hours')
    returning jobs.* into v_job;

    if found then
        perform pg_notify('jobs:insert', '{"r":' || random() || ',"count":-1}');
        return v_job;
    end if;

    -- A worker is running it: it must not be tried again.
    update :schema._private_jobs as jobs
    set key = null, attempts = jobs.max_attempts, updated_at = now()
    where jobs.key = remove_job.job_key
    returning jobs.* into v_job;
    return v_job;
end;
$graphile_worker_body$;
