-- Does what `admin_fail.sql` does, to one batch of the jobs that a filter finds: those after
-- `after_id`, by id. The rows are locked while the filter is checked, so that a job that changes at
-- this moment is not mistaken for what it was. Jobs that a worker or a transaction holds are stepped
-- over: nobody waits for us, and we wait for nobody.
with chosen as materialized (
    select job.id
    from :schema._private_jobs as job
    where :job_filter
      and (job.locked_at is null or job.locked_at < now() - interval '4 hours')
      and job.id > %(after_id)s::bigint and job.id <= %(last_id)s::bigint
    order by job.id
    limit %(limit)s::bigint
    for update of job skip locked
),
changed as materialized (
    select *
    from :schema.permanently_fail_jobs(
        job_ids => array(select id from chosen),
        error_message => %(reason)s::text
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
    (select max(id) from chosen) as last,
    array(select id from changed order by id) as ids
