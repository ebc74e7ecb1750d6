create table if not exists :schema.zodworker_migrations (
    id integer primary key,
    name text not null unique,
    applied_at timestamptz not null default now()
)
