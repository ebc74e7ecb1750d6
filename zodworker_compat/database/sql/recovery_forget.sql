-- Clears away pools that have been dead for a day and hold nothing.
delete from :schema.zodworker_workers
where dead_at < now() - interval '1 day' and recovered_at is not null
