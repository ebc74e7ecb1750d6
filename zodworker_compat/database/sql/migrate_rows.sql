-- One snapshot: the relations are those of the revisions, though another session may commit both
-- at this moment. `breaking` may be missing from the table.
select
    array(select id from :schema.migrations order by id) as revisions,
    array(
        select id
        from :schema.migrations as ledger
        where (to_jsonb(ledger) ->> 'breaking')::boolean
    ) as breaking,
    (
        select extract(epoch from clock_timestamp() - max(ts))::float8 from :schema.migrations
    ) as age,
    array(
        select relation.relname::text
        from pg_catalog.pg_namespace as namespace
        join pg_catalog.pg_class as relation on relation.relnamespace = namespace.oid
        where namespace.nspname = %(schema)s and relation.relname = any(%(relations)s)
        order by relation.relname
    ) as relations
