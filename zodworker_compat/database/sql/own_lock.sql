-- One session at a time makes tables of ours in this schema; the others then find them.
select pg_advisory_xact_lock(hashtextextended('zodworker_migrations ' || %(schema)s, 0))
