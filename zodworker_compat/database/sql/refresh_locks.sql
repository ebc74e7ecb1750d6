-- Keeps the locks of a pool's long jobs, and of their queues, younger than the four hours after
-- which every graphile-worker takes them away. They move by whole hours, so that a settling
-- statement still knows the claim that it is about: see `fail.sql`.
with lockable as materialized (
    select id
    from :schema._private_jobs
    where id = any (%(ids)s::bigint[])
      and locked_by = %(pool_id)s
      and locked_at < now() - interval '1 hour'
    for update skip locked
),
refreshed as (
    update :schema._private_jobs as job
    set locked_at = job.locked_at
        + floor(extract(epoch from now() - job.locked_at) / 3600) * interval '1 hour'
    from lockable
    where job.id = lockable.id
    returning job.id, job.job_queue_id, job.locked_at
),
queues as materialized (
    select queue.id, refreshed.locked_at
    from refreshed
    join :schema._private_job_queues as queue on queue.id = refreshed.job_queue_id
    where queue.locked_by = %(pool_id)s
    for update of queue skip locked
),
refreshed_queues as (
    update :schema._private_job_queues as queue
    set locked_at = queues.locked_at
    from queues
    where queue.id = queues.id
)
select id from refreshed
