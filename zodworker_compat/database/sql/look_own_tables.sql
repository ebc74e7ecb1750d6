-- Which of our own tables are there; the queue works without them.
select relation.relname::text as name
from pg_catalog.pg_class as relation
join pg_catalog.pg_namespace as namespace on namespace.oid = relation.relnamespace
where namespace.nspname = %(schema)s and relation.relname like 'zodworker\_%%'
