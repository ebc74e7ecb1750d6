-- How many delayed tasks were completed, and how many of them too early.
select count(*), count(*) filter (where completed_at < delay_until)
from :schema.tasks
join :schema.runs on runs.id = tasks.run_id
join :schema.events on events.id = runs.event_id
where task_delay > 0 and completed_at is not null;
