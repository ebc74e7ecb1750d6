-- What a worker does with each table that is there, and what this role may not do.
select
    need.name,
    array(
        select privilege
        from unnest(string_to_array(need.privileges, ', ')) as privilege
        where not has_table_privilege(relation.oid, privilege)
    ) as missing,
    :rows_hidden as hides_rows,
    pg_get_userbyid(relation.relowner)::text as owner,
    has_schema_privilege(namespace.oid, 'usage') as may_use_schema,
    has_schema_privilege(namespace.oid, 'create') as may_create
from (
    values
        ('migrations', 'select'),
        ('_private_jobs', 'select, insert, update, delete'),
        ('_private_tasks', 'select, insert, update'),
        ('_private_job_queues', 'select, insert, update'),
        ('_private_known_crontabs', 'select, insert, update'),
        ('zodworker_migrations', 'select'),
        ('zodworker_workers', 'select, insert, update, delete'),
        ('zodworker_limiter_slots', 'select, insert, update, delete'),
        ('zodworker_paused_flags', 'select, insert, update, delete')
) as need (name, privileges)
join pg_catalog.pg_class as relation on relation.relname = need.name
join pg_catalog.pg_namespace as namespace on namespace.oid = relation.relnamespace
where namespace.nspname = %(schema)s and relation.relkind in ('r', 'p')
order by need.name
