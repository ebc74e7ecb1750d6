create table :schema._private_known_crontabs (
    identifier text not null,
    known_since timestamptz not null,
    last_execution timestamptz,
    constraint known_crontabs_pkey primary key (identifier)
);

alter table :schema._private_known_crontabs enable row level security;
