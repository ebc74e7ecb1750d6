-- A later version of an event that waits for its delivery replaces the earlier one.
insert into :schema.events as known (id, name, source, environment, payload, task_delay, deliver_at)
values (
    %(id)s, %(name)s, %(source)s, %(environment)s, %(payload)s, %(task_delay)s, %(deliver_at)s
)
on conflict (id) do update
set payload = excluded.payload, deliver_at = excluded.deliver_at
where known.delivered_at is null;
