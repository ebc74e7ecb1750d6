-- Makes settings, for the session or, if `is_local`, for the transaction. For the session it makes none
-- and returns nothing if a pooler is in between, whose other clients would have them too: a pooler
-- tells each client a process id of its own making. Settings that this version does not know are left out.
select set_config(name, value, %(is_local)s::boolean)
from unnest(%(names)s::text[], %(values)s::text[]) as setting (name, value)
where (%(is_local)s::boolean or pg_backend_pid() = %(pid)s::bigint)
  and current_setting(name, true) is not null
