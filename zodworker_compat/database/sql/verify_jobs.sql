-- The jobs table as PostgreSQL keeps it.
select
    relpersistence = 'u' as is_unlogged,
    exists (
        select
        from pg_options_to_table(reloptions)
        where option_name = 'autovacuum_enabled' and not option_value::boolean
    ) as has_no_autovacuum,
    coalesce(n_live_tup, 0) as live_rows,
    coalesce(n_dead_tup, 0) as dead_rows,
    pg_relation_size(relation.oid) as bytes,
    array(
        select tgname::text from pg_catalog.pg_trigger where tgrelid = relation.oid and not tgisinternal
    ) as triggers
from pg_catalog.pg_class as relation
left join pg_catalog.pg_stat_user_tables as stats on stats.relid = relation.oid
where relation.relnamespace = to_regnamespace(':schema') and relation.relname = '_private_jobs'
