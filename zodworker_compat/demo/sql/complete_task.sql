with task as (
    update :schema.tasks
    set status = 'COMPLETED', completed_at = clock_timestamp()
    where id = %(id)s and status = 'WAITING'
    returning run_id
),
run as (
    update :schema.runs
    set status = 'SUCCESS'
    from task
    where id = run_id
    returning event_id
)
select events.id, events.name, events.payload
from run
join :schema.events on events.id = run.event_id;
