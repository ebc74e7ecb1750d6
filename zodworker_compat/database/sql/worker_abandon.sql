-- Declares a pool dead by its own word, or again: it has stopped or found itself declared dead, and
-- may still hold jobs.
update :schema.zodworker_workers
set dead_at = coalesce(dead_at, now()), recovered_at = null
where pool_id = %(pool_id)s
