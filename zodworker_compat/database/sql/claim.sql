-- Claims up to `limit` jobs of the tasks `task_ids` for the pool `pool_id`, best first.
--
-- The lines that end in "limited" are there for a worker with a rate limiter alone: flags are in no
-- index. Jobs with a flag of `forbidden` are skipped, those without flags never, as graphile-worker
-- 0.16.6; and of jobs with the same flags one is claimed at a time, because it may take their last
-- slot: the others would only come back. The flag of a trace, which each job has its own, does not
-- count.
--
-- Why this is right beside other fetchers (READ COMMITTED, one statement, one snapshot):
--   * A queue is claimed by locking its row, and only then a job of it. Node locks every available
--     queue row for the length of its fetch, other Python pools lock those they are about to take;
--     all of us skip locked rows, so nobody waits, nobody deadlocks, and one fetcher has a queue.
--   * If another fetcher took the queue and committed after our snapshot, locking its row makes
--     PostgreSQL fetch the newest version and check the conditions again (EvalPlanQual):
--     `is_available` is false there, the row is dropped. If it took the queue and has given it
--     back already, the row passes; then its job is checked in the same way: deleted, claimed,
--     postponed, or moved to another queue or task by `add_job`, it is dropped too. That is why
--     every condition stands again beside each FOR UPDATE.
--   * One job per queue: `first_of_queue` holds each queue once.
--   * Rows that were locked here and not picked are unchanged; their locks end with the statement.
--
-- Why it is fast: jobs without a queue have their own index. Queued jobs are read only up to the
-- `horizon`, the last job without a queue if those fill the batch: a long backlog of either kind
-- costs nothing. `look_ahead` bounds what a deep queue costs; what lies behind it is seen by the
-- next claim, when that queue is taken. What lies in queues that others hold must be passed, 0.2 µs
-- for each job, since no index has the queue first: 0 leaves named queues out.
--
-- The plan does not hang on statistics, which are of another hour: `= any (array(...))` and `lateral`
-- leave the planner no choice but index lookups, where a join might read a whole table.
--
-- `most_bytes` bounds the payloads of a batch, but for the last of them; as they are stored, which costs
-- nothing to know. One that may be compressed counts tenfold: JSON shrinks to a fifth, a run of one
-- letter to an eightieth.
with unqueued as materialized (
    select id, job_queue_id, priority, run_at, pg_column_size(payload) as size
    , flags -- limited
    from :schema._private_jobs
    where is_available and job_queue_id is null
      and run_at <= now() and task_id = any (%(task_ids)s::integer[])
      and (flags ?| %(forbidden)s::text[]) is not true -- limited
    order by priority, run_at
    limit %(limit)s
    for update skip locked
),
horizon as materialized (
    select
        coalesce(min(priority), 32767)::smallint as priority,
        coalesce(min(run_at), 'infinity') as run_at
    from (select priority, run_at from unqueued order by priority, run_at offset %(limit)s - 1) as last
),
waiting as materialized (
    select job.id, job.job_queue_id, job.priority, job.run_at
    from (
        select id, job_queue_id, priority, run_at
        from :schema._private_jobs
        where is_available and job_queue_id is not null
          and run_at <= now() and task_id = any (%(task_ids)s::integer[])
          and (flags ?| %(forbidden)s::text[]) is not true -- limited
          and (priority, run_at) < (select priority, run_at from horizon)
        order by priority, run_at
    ) as job
    cross join lateral (
        select from :schema._private_job_queues
        where id = job.job_queue_id and is_available
        offset 0
    ) as queue
    limit %(look_ahead)s
),
first_of_queue as materialized (
    select distinct on (job_queue_id) id, job_queue_id, priority, run_at
    from waiting
    order by job_queue_id, priority, run_at, id
),
locked_queue as materialized (
    select queue.id, first.id as job_id
    from (select * from first_of_queue order by priority, run_at) as first
    cross join lateral (
        select id from :schema._private_job_queues
        where id = first.job_queue_id and is_available
        for update skip locked
    ) as queue
    limit %(limit)s
),
queued as materialized (
    select job.*
    from locked_queue
    cross join lateral (
        select id, job_queue_id, priority, run_at, pg_column_size(payload) as size
        , flags -- limited
        from :schema._private_jobs
        where id = locked_queue.job_id and job_queue_id = locked_queue.id
          and is_available and run_at <= now() and task_id = any (%(task_ids)s::integer[])
          and (flags ?| %(forbidden)s::text[]) is not true -- limited
        for update skip locked
    ) as job
),
candidates as materialized (
    select *, size * case when size < 1000 then 1 else 10 end as bytes from (select * from unqueued union all select * from queued) as found
),
repeated as materialized ( -- limited
    select id -- limited
    from ( -- limited
        select id, row_number() over (partition by names order by priority, run_at) as place -- limited
        from candidates -- limited
        cross join lateral ( -- limited
            select array_agg(name order by name) as names -- limited
            from jsonb_object_keys(case jsonb_typeof(flags) when 'object' then flags end) as name -- limited
            where name not like 'traceparent:%%' -- limited
        ) as own -- limited
        where names is not null -- limited
    ) as placed -- limited
    where place > 1 -- limited
), -- limited
picked as materialized (
    select id, job_queue_id
    from (
        select *, sum(bytes) over (order by priority, run_at, id) - bytes as bytes_before
        from candidates
        where id not in (select id from repeated) -- limited
    ) as ordered
    where bytes_before < %(most_bytes)s
    order by priority, run_at, id
    limit %(limit)s
),
taken_queue as (
    update :schema._private_job_queues as queue
    set locked_by = %(pool_id)s, locked_at = now()
    where id = any (array(select job_queue_id from picked where job_queue_id is not null))
),
claimed as (
    update :schema._private_jobs as job
    set attempts = job.attempts + 1, locked_by = %(pool_id)s, locked_at = now()
    where id = any (array(select id from picked))
    returning job.*
)
select
    job.id,
    job.task_id,
    job.job_queue_id,
    (select queue_name from :schema._private_job_queues where id = job.job_queue_id),
    job.payload::text,
    job.priority,
    -- Python has no year before 1 or after 9999; one such time must not break a batch
    greatest(job.run_at, '0001-01-02 UTC') as run_at,
    job.attempts,
    job.max_attempts,
    job.last_error,
    greatest(least(job.created_at, '9999-12-30 UTC'), '0001-01-02 UTC') as created_at,
    greatest(least(job.updated_at, '9999-12-30 UTC'), '0001-01-02 UTC') as updated_at,
    job.key,
    job.locked_at,
    job.revision,
    job.flags::text,
    -- another fetcher holds a queue that looked free, or a deep queue hid others: ask again soon
    (select count(*) from first_of_queue) > (select count(*) from queued)
    or (select count(*) from waiting) = nullif(%(look_ahead)s, 0)
    -- or payloads are large, or jobs have the same flags
    or ((select count(*) from picked) < %(limit)s and (select count(*) from candidates) > (select count(*) from picked))
    as more,
    -- nobody tells when Node frees a queue: look again. Not beyond a deep queue of our own, whose end
    -- has us look again anyway
    exists (
        select from (
            select job_queue_id
            from :schema._private_jobs
            where is_available and job_queue_id is not null
              and run_at <= now() and task_id = any (%(task_ids)s::integer[])
              and (flags ?| %(forbidden)s::text[]) is not true -- limited
              and (priority, run_at) < (select priority, run_at from horizon)
            order by priority, run_at
            limit 100
        ) as job
        cross join lateral (
            select from :schema._private_job_queues
            where id = job.job_queue_id and locked_by <> %(pool_id)s
            offset 0
        ) as queue
    ) as blocked
from (select) as always
left join claimed as job on true
order by job.priority, job.run_at, job.id
