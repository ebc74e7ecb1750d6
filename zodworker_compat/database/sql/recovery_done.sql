-- Notes that dead pools hold nothing any more.
update :schema.zodworker_workers set recovered_at = now() where pool_id = any (%(pool_ids)s::text[])
