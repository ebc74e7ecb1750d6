-- Keeps the slots of jobs that run for long.
update :schema.zodworker_limiter_slots as slot
set taken_at = now()
from unnest(%(job_ids)s::bigint[], %(pool_ids)s::text[]) as held (job_id, pool_id)
where slot.job_id = held.job_id and slot.pool_id = held.pool_id
