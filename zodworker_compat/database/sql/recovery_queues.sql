-- Frees the named queues that dead pools hold.
with lockable as materialized (
    select id
    from :schema._private_job_queues
    where locked_by = any (%(pool_ids)s::text[])
    for update skip locked
)
update :schema._private_job_queues as queue
set locked_by = null, locked_at = null
from lockable
where queue.id = lockable.id
returning queue.id
