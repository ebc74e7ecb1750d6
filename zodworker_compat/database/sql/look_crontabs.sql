select identifier, known_since, last_execution, now() as read_at
from :schema._private_known_crontabs
order by identifier
limit %(limit)s::bigint
