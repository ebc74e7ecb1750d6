-- The server as a worker meets it. What this role may not see of other sessions is null.
with limits as (
    select
        current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true), '0')::integer
        - (select coalesce(sum(numbackends), 0) from pg_catalog.pg_stat_database) as of_server,
        (
            select datconnlimit - (select numbackends from pg_catalog.pg_stat_database where datid = oid)
            from pg_catalog.pg_database
            where datname = current_database() and datconnlimit >= 0
        ) as of_database,
        (
            select rolconnlimit - (select count(*) from pg_catalog.pg_stat_activity where usesysid = oid)
            from pg_catalog.pg_roles
            where rolname = current_user and rolconnlimit >= 0
        ) as of_role
)

select
    clock_timestamp() as clock,
    current_setting('server_version') as version,
    current_user::text as role,
    pg_is_in_recovery() as is_standby,
    current_setting('default_transaction_read_only')::boolean as is_read_only,
    current_setting('fsync')::boolean as syncs,
    current_setting('synchronous_commit') as synchronous_commit,
    current_setting('autovacuum')::boolean as autovacuums,
    greatest(0, least(of_server, of_database, of_role))::integer as free_connections,
    (
        select max(now() - xact_start)
        from pg_catalog.pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
    ) as longest_transaction,
    -- graphile-worker listens on a connection that does nothing else, so its LISTEN stays visible.
    (
        select count(*)::integer
        from pg_catalog.pg_stat_activity
        where datname = current_database()
          and query ~* '^\s*listen "(jobs:insert|worker:migrate)"'
          and application_name not like 'zodworker%%'
    ) as node_listeners
from limits
