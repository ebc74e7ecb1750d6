insert into :schema._private_known_crontabs (identifier, known_since)
select identifier, %(start)s::timestamptz
from unnest(%(identifiers)s::text[]) as identifier
on conflict (identifier) do nothing
