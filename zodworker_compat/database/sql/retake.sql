-- Locks again those of the jobs `ids` whose claim by `pool_id` the server has forgotten in a crash, as nobody
-- waits for a claim to be durable, and their queues, if these are free. Returns the ids of all that the pool
-- holds after that.
--
-- A forgotten claim leaves the row as it was before: free, with one attempt fewer, and unchanged. Whatever
-- else frees a job can be told from that: a failure and the recovery of a dead pool write `last_error`, the
-- functions that change a job write `updated_at`, a sweep and an unlock by hand leave the attempt.
-- If the pool has claimed such a job a second time, the first claim's `locked_at` is put back: its run goes on.
with given as materialized (
    select *
    from unnest(
        %(ids)s::bigint[], %(attempts)s::integer[], %(locked_at)s::timestamptz[], %(updated_at)s::timestamptz[], %(last_errors)s::text[]
    ) as claim (id, attempts, locked_at, updated_at, last_error)
),
forgotten as materialized (
    select job.id, job.job_queue_id, given.attempts, given.locked_at
    from given
    join :schema._private_jobs as job on job.id = given.id
    where job.updated_at = given.updated_at
      and job.last_error is not distinct from given.last_error
      and case
          when job.locked_by is null then job.attempts = given.attempts - 1
          else job.locked_by = %(pool_id)s and job.attempts = given.attempts
      end
    for update of job skip locked
),
free_queue as materialized (
    select queue.id, forgotten.locked_at
    from forgotten
    join :schema._private_job_queues as queue on queue.id = forgotten.job_queue_id
    where queue.is_available
    for update of queue skip locked
),
taken_queue as (
    update :schema._private_job_queues as queue
    set locked_by = %(pool_id)s, locked_at = free_queue.locked_at
    from free_queue
    where queue.id = free_queue.id
)
update :schema._private_jobs as job
set attempts = forgotten.attempts, locked_by = %(pool_id)s, locked_at = forgotten.locked_at
from forgotten
where job.id = forgotten.id
returning job.id
