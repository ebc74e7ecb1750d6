select
    count(*) filter (where created_at > %(since)s::timestamptz and created_at < %(until)s::timestamptz),
    count(*)
from :schema._private_jobs
