update :schema.events
set delivered_at = clock_timestamp()
where id = %(id)s and delivered_at is null
returning name;
