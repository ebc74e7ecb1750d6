select
    (select max(id) from :schema.migrations) as revision,
    now() as read_at,
    current_database() as database,
    -- unless a policy lets this role see all, as those of docs/security.md do
    row_security_active(relation.oid) and not exists (
        select
        from pg_policy
        where polrelid = relation.oid and polpermissive and polcmd in ('*', 'r')
          and pg_get_expr(polqual, polrelid) = 'true'
          and exists (
              select
              from unnest(polroles) as member
              where case when member = 0 then true else pg_has_role(member, 'usage') end
          )
    ) as row_security,
    current_user as role,
    pg_get_userbyid(relation.relowner) as owner
from pg_class as relation
join pg_namespace as namespace on namespace.oid = relation.relnamespace
where namespace.nspname = %(schema)s and relation.relname = '_private_jobs'
