-- One job at a time takes slots of these flags, until the transaction ends. In one order, so that
-- two jobs that share several flags do not deadlock.
select pg_advisory_xact_lock(key)
from (
    select distinct hashtextextended('zodworker_limiter ' || %(schema)s || ' ' || flag, 0) as key
    from unnest(%(flags)s::text[]) as flag
    order by key
) as keys
