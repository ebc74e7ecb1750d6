-- Who works on the queue: one row for each Python pool, made when it starts, deleted when it stops
-- with nothing locked. All times are the database's.
create table :schema.zodworker_workers (
    -- what stands in `locked_by` of the jobs and queues that the pool holds
    pool_id text primary key,
    name text not null,
    host text not null,
    pid integer not null,
    version text not null,
    concurrency integer not null,
    tasks text[] not null,
    started_at timestamptz not null default now(),
    beat_at timestamptz not null default now(),
    -- a pool that is silent for longer is declared dead
    dead_after interval not null,
    -- A pool that is declared dead stays dead: if it lives, it goes on under a new id. Its row is
    -- kept for a day, since a claim of it that was under way may still lock jobs.
    dead_at timestamptz,
    -- when nothing was left that it held
    recovered_at timestamptz
);

alter table :schema.zodworker_workers enable row level security;
