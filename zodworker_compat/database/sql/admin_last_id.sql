-- Jobs that are added from now on have larger ids.
select coalesce(max(id), 0) as id from :schema._private_jobs
