-- Locked, so that none of them can be revived before it is deleted.
select id
from :schema._private_jobs
where run_at < %(expiration)s::timestamptz and locked_at is null and attempts >= max_attempts
order by run_at
limit %(most)s::bigint
for update skip locked
