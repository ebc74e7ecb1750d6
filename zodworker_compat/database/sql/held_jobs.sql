-- The jobs that `pool_id` holds.
select id, locked_at
from :schema._private_jobs
where locked_by = %(pool_id)s
