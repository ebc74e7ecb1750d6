-- Who holds a slot of which flag: one row for each limiting flag of each running job.
create table :schema.zodworker_limiter_slots (
    flag text not null,
    job_id bigint not null,
    pool_id text not null,
    -- how many slots the flag had when this one was taken
    size integer not null,
    taken_at timestamptz not null default now(),
    primary key (flag, job_id)
);

create index zodworker_limiter_slots_job on :schema.zodworker_limiter_slots (job_id);

create table :schema.zodworker_paused_flags (
    flag text primary key,
    paused_at timestamptz not null default now()
);

alter table :schema.zodworker_limiter_slots enable row level security;
alter table :schema.zodworker_paused_flags enable row level security;
