select
    (select max(id) from :schema.migrations) as revision,
    now() as read_at,
    current_database() as database,
    :rows_hidden as row_security,
    pg_relation_size(relation.oid) / current_setting('block_size')::integer as pages,
    current_user as role,
    pg_get_userbyid(relation.relowner) as owner
from pg_class as relation
join pg_namespace as namespace on namespace.oid = relation.relnamespace
where namespace.nspname = %(schema)s and relation.relname = '_private_jobs'
