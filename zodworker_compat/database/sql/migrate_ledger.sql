-- What is there of a schema, from the catalogs: readable whatever the role may do.
select
    exists (select from pg_catalog.pg_namespace where nspname = %(schema)s) as has_schema,
    array(
        select attribute.attname::text
        from pg_catalog.pg_namespace as namespace
        join pg_catalog.pg_class as ledger on ledger.relnamespace = namespace.oid
        join pg_catalog.pg_attribute as attribute on attribute.attrelid = ledger.oid
        where namespace.nspname = %(schema)s and ledger.relname = 'migrations'
          and attribute.attnum > 0 and not attribute.attisdropped
    ) as columns,
    array(
        select relation.relname::text
        from pg_catalog.pg_namespace as namespace
        join pg_catalog.pg_class as relation on relation.relnamespace = namespace.oid
        where namespace.nspname = %(schema)s and relation.relname = any(%(relations)s)
        order by relation.relname
    ) as relations
