update :schema.runs
set execution_started_at = clock_timestamp()
where id = %(id)s and status = 'STARTED'
returning event_id;
