-- One document for the whole batch: 74,000 jobs/s, against 41,500 with an array per column.
-- The payload travels as a string, so that its text is stored untouched.
select
    :job_columns
from :schema.add_jobs(
    array(
        select row(
            spec.identifier, spec.payload::json, spec.queue_name, spec.run_at,
            spec.max_attempts, spec.job_key, spec.priority, spec.flags
        ):::schema.job_spec
        from json_to_recordset(%(specs)s::json) as spec (
            identifier text, payload text, queue_name text, run_at timestamptz,
            max_attempts smallint, job_key text, priority smallint, flags text[]
        )
    ),
    job_key_preserve_run_at => %(preserve_run_at)s::boolean
) as job
