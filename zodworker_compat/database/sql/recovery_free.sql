-- Unlocks jobs of dead pools and writes the reason into `last_error`. Returns those that it freed:
-- rows that an open transaction holds are skipped, and those that are free by now.
--
-- The claim has counted the attempt. It stays counted, so that a job that kills its worker each
-- time ends failed, unless the job `has_waited` only: then it is uncounted, but for three times in
-- a row at most, because who ran is not known for sure, and not if `add_job` or `remove_job` have
-- used its attempts up meanwhile.
--
-- The job can be claimed at once. From the second death in a row on it is postponed as if it had
-- failed, so that it does not take the fleet down.
with lockable as materialized (
    select
        job.id, job.attempts, job.max_attempts, job.run_at, given.pool_id,
        given.has_waited and job.updated_at <= job.locked_at as has_waited,
        case
            when job.last_error like 'WorkerDied: %%'
            then 1 + coalesce(substring(job.last_error from ' \((\d{1,4}) in a row\)')::integer, 1)
            else 1
        end as deaths
    from unnest(%(ids)s::bigint[], %(pool_ids)s::text[], %(has_waited)s::boolean[])
        as given (id, pool_id, has_waited)
    join :schema._private_jobs as job on job.id = given.id and job.locked_by = given.pool_id
    for update of job skip locked
),
judged as materialized (
    select
        id, max_attempts, run_at, pool_id, deaths,
        case when has_waited and deaths <= 3 then greatest(0, attempts - 1) else attempts end as attempts
    from lockable
)
update :schema._private_jobs as job
set attempts = judged.attempts,
    last_error = format(
        'WorkerDied: worker %%s (%%s, process %%s, %%s) %%s%%s%%s',
        worker.name, worker.host, worker.pid, worker.pool_id,
        case
            when worker.dead_at - worker.beat_at between interval '0' and worker.dead_after
            then 'stopped without giving the job back'
            else format(
                'gave no sign of life for %%s s',
                round(abs(extract(epoch from worker.dead_at - worker.beat_at))::numeric, 1)
            )
        end,
        case when judged.deaths > 1 then format(' (%%s in a row)', judged.deaths) end,
        case when judged.attempts >= judged.max_attempts then '; no attempt is left' end
    ),
    run_at = case
        when judged.deaths = 1 then judged.run_at
        else now() + exp(greatest(-99, least(judged.attempts, 10))::float8) * interval '1 second'
    end,
    locked_by = null,
    locked_at = null
from judged
join :schema.zodworker_workers as worker on worker.pool_id = judged.pool_id
where job.id = judged.id
returning job.id
