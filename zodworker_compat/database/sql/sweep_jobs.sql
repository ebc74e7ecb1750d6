-- Frees jobs whose lock is older than four hours: their worker died without giving them back.
-- The four hours are graphile-worker's and in every one of its versions; Node sweeps ours too.
update :schema._private_jobs
set locked_by = null, locked_at = null, run_at = greatest(run_at, now())
where locked_at < now() - interval '4 hours'
returning id
