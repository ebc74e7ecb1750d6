-- Deletes task identifiers that no job has, but for those to keep; see `admin_lock_names.sql`.
delete from :schema._private_tasks as task
where task.identifier <> all (%(keep)s::text[])
  and not exists (select from :schema._private_jobs as job where job.task_id = task.id)
