with sent as (
    update :schema.outbox
    set sent_at = clock_timestamp()
    where id = %(id)s and recipient = %(recipient)s and sent_at is null
    returning id
)
select runs.event_id
from sent
join :schema.tasks on tasks.id = sent.id
join :schema.runs on runs.id = tasks.run_id;
