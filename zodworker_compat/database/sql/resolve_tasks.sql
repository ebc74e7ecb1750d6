-- Returns the id of each of `identifiers`, adding those that are new, as graphile-worker does
-- when a worker starts. One that another session adds at this moment may be missing: ask again.
with known as (
    select id, identifier
    from :schema._private_tasks
    where identifier = any (%(identifiers)s::text[])
),
added as (
    insert into :schema._private_tasks (identifier)
    select wanted.identifier
    from unnest(%(identifiers)s::text[]) as wanted (identifier)
    where not exists (select from known where known.identifier = wanted.identifier)
    on conflict do nothing
    returning id, identifier
)
select id, identifier from known union all select id, identifier from added
