-- Whether row level security hides rows of the table `relation` from this role: unless a policy lets it
-- see all, as those of docs/security.md do.
row_security_active(relation.oid) and not exists (
    select
    from pg_catalog.pg_policy
    where polrelid = relation.oid and polpermissive and polcmd in ('*', 'r')
      and pg_get_expr(polqual, polrelid) = 'true'
      and exists (
          select
          from unnest(polroles) as member
          where case when member = 0 then true else pg_has_role(member, 'usage') end
      )
)
