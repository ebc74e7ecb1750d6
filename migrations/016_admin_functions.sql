-- A job is left alone while a worker may be running it: for four hours after it was locked.

create function :schema.complete_jobs(job_ids bigint[])
returns setof :schema._private_jobs
language sql
as $graphile_worker_body$
    delete from :schema._private_jobs as jobs
    where jobs.id = any(complete_jobs.job_ids)
      and (jobs.locked_at is null or jobs.locked_at < now() - interval '4 hours')
    returning jobs.*;
$graphile_worker_body$;

create function :schema.permanently_fail_jobs(job_ids bigint[], error_message text default null)
returns setof :schema._private_jobs
language sql
as $graphile_worker_body$
    update :schema._private_jobs as jobs
    set last_error = coalesce(permanently_fail_jobs.error_message, 'Manually marked as failed'),
        attempts = jobs.max_attempts,
        updated_at = now()
    where jobs.id = any(permanently_fail_jobs.job_ids)
      and (jobs.locked_at is null or jobs.locked_at < now() - interval '4 hours')
    returning jobs.*;
$graphile_worker_body$;

create function :schema.reschedule_jobs(
    job_ids bigint[],
    run_at timestamptz default null,
    priority integer default null,
    attempts integer default null,
    max_attempts integer default null
)
returns setof :schema._private_jobs
language sql
as $graphile_worker_body$
    update :schema._private_jobs as jobs
    set run_at = coalesce(reschedule_jobs.run_at, jobs.run_at),
        priority = coalesce(reschedule_jobs.priority, jobs.priority),
        attempts = coalesce(reschedule_jobs.attempts, jobs.attempts),
        max_attempts = coalesce(reschedule_jobs.max_attempts, jobs.max_attempts),
        updated_at = now()
    where jobs.id = any(reschedule_jobs.job_ids)
      and (jobs.locked_at is null or jobs.locked_at < now() - interval '4 hours')
    returning jobs.*;
$graphile_worker_body$;

create function :schema.force_unlock_workers(worker_ids text[])
returns void
language sql
as $graphile_worker_body$
    update :schema._private_jobs as jobs
    set locked_at = null, locked_by = null
    where jobs.locked_by = any(force_unlock_workers.worker_ids);

    update :schema._private_job_queues as job_queues
    set locked_at = null, locked_by = null
    where job_queues.locked_by = any(force_unlock_workers.worker_ids);
$graphile_worker_body$;
