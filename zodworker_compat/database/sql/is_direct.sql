-- Whether the client talks to PostgreSQL itself: a pooler tells each one a process id of its own making.
select pg_backend_pid() = %(pid)s::bigint
