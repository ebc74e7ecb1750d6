-- Tells all workers, Node's too, of those of the queues `queue_ids` that are free and have a job that
-- is due. Looks only as far as a worker who asks next would get: what lies behind a long backlog can
-- wait for the workers to come to it, and no index has the queue of a job.
with due as materialized (
    select job_queue_id
    from :schema._private_jobs
    where is_available and run_at <= now()
    order by priority, run_at
    limit 1000
)
select pg_notify('jobs:insert', format('{"r":%%s,"count":%%s}', random(), count(*)))
from :schema._private_job_queues
where id = any (%(queue_ids)s::integer[]) and is_available
  and id in (select job_queue_id from due)
having count(*) > 0
