-- Frees named queues whose lock is older than four hours, as `sweep_jobs.sql`.
update :schema._private_job_queues
set locked_by = null, locked_at = null
where locked_at < now() - interval '4 hours'
returning id
