-- The dead pools that may hold something, for this transaction alone; with `again` also those that
-- held nothing any more: a claim that was under way may have come after that.
select pool_id
from :schema.zodworker_workers
where dead_at is not null and (recovered_at is null or %(again)s::boolean)
for update skip locked
