select identifier, known_since, last_execution
from :schema._private_known_crontabs
where identifier = any(%(identifiers)s::text[])
