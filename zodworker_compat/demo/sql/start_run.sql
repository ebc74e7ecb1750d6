update :schema.runs
set status = 'STARTED'
from :schema.events
where runs.id = %(id)s and runs.status = 'PENDING' and events.id = runs.event_id
returning runs.queue_name, events.environment;
