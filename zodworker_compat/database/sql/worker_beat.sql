-- Says that the pool lives; returns no row if it has been declared dead, and stays so. Also says
-- what time it is in the database, and whether there may be somebody to recover from.
update :schema.zodworker_workers as own
set beat_at = now()
where own.pool_id = %(pool_id)s and own.dead_at is null
returning
    extract(epoch from own.beat_at)::float8 as clock,
    exists (
        select
        from :schema.zodworker_workers as other
        where other.pool_id <> %(pool_id)s
          and case
              when other.dead_at is null
              then now() - other.beat_at not between - other.dead_after and other.dead_after
              else other.recovered_at is null
          end
    ) as is_any_dead
