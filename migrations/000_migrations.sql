-- The list of revisions. Before graphile-worker 0.14 it had no column `breaking`.
create table if not exists :schema.migrations (
    id integer not null,
    ts timestamptz not null default now(),
    constraint migrations_pkey primary key (id)
);

alter table :schema.migrations add column if not exists breaking boolean not null default false;
