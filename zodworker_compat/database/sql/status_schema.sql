select
    (select max(id) from :schema.migrations) as revision,
    current_database() as database,
    row_security_active(relation.oid) as row_security,
    current_user as role,
    pg_get_userbyid(relation.relowner) as owner
from pg_class as relation
join pg_namespace as namespace on namespace.oid = relation.relnamespace
where namespace.nspname = %(schema)s and relation.relname = '_private_jobs'
