create schema :schema;

-- What the outside world sent.
create table :schema.events (
    id text primary key,
    name text not null,
    source text not null,
    environment text not null,
    payload jsonb not null,
    task_delay double precision not null, -- seconds
    deliver_at timestamptz not null,
    delivered_at timestamptz
);

-- One reaction to one event.
create table :schema.runs (
    id text primary key,
    event_id text not null unique references :schema.events,
    status text not null default 'PENDING'
        check (status in ('PENDING', 'STARTED', 'EXECUTED', 'SUCCESS')),
    queue_name text,
    execution_started_at timestamptz,
    execution_ended_at timestamptz
);

-- One piece of work of a run.
create table :schema.tasks (
    id text primary key,
    run_id text not null unique references :schema.runs,
    status text not null default 'WAITING' check (status in ('WAITING', 'COMPLETED')),
    delay_until timestamptz not null,
    completed_at timestamptz
);

-- One e-mail of a task.
create table :schema.outbox (
    id text primary key references :schema.tasks,
    recipient text not null,
    kind text not null,
    sent_at timestamptz
);
