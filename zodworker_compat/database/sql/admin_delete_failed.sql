-- Jobs with more attempts than allowed never run either; graphile-worker 0.16.6 misses them.
delete from :schema._private_jobs
where attempts >= max_attempts and locked_at is null
