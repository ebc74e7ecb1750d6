with run as (
    update :schema.runs
    set status = 'EXECUTED', execution_ended_at = clock_timestamp()
    where id = %(id)s
    returning id, event_id
)
insert into :schema.tasks (id, run_id, delay_until)
select 'task_' || event_id, run.id, now() + task_delay * interval '1 second'
from run
join :schema.events on events.id = run.event_id
returning id, delay_until;
