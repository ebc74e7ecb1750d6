-- Deletes unlocked queues that no job is in; see `admin_lock_names.sql`.
delete from :schema._private_job_queues as queue
where queue.locked_at is null
  and not exists (select from :schema._private_jobs as job where job.job_queue_id = queue.id)
