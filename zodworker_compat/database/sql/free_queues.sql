-- Frees the named queues `ids` that `pool_id` has held since `locked_at`, for jobs whose rows somebody has
-- deleted or unlocked while they ran. The same claim's lock may be whole hours younger: see
-- `refresh_locks.sql`.
with lockable as materialized (
    select queue.id
    from unnest(%(ids)s::integer[], %(locked_at)s::timestamptz[]) as given (id, locked_at)
    join :schema._private_job_queues as queue on queue.id = given.id
    where queue.locked_by = %(pool_id)s
      and mod(extract(epoch from queue.locked_at - given.locked_at)::numeric, 3600) = 0
    for update of queue skip locked
)
update :schema._private_job_queues as queue
set locked_by = null, locked_at = null
from lockable
where queue.id = lockable.id
