-- What graphile-worker's revision 18 has, and this schema lacks: columns with their types, valid
-- indexes, functions that this role may call.
select expected.kind, expected.name
from (
    values
        ('column', '_private_jobs.id bigint'),
        ('column', '_private_jobs.job_queue_id integer'),
        ('column', '_private_jobs.task_id integer'),
        ('column', '_private_jobs.payload json'),
        ('column', '_private_jobs.priority smallint'),
        ('column', '_private_jobs.run_at timestamp with time zone'),
        ('column', '_private_jobs.attempts smallint'),
        ('column', '_private_jobs.max_attempts smallint'),
        ('column', '_private_jobs.last_error text'),
        ('column', '_private_jobs.created_at timestamp with time zone'),
        ('column', '_private_jobs.updated_at timestamp with time zone'),
        ('column', '_private_jobs.key text'),
        ('column', '_private_jobs.locked_at timestamp with time zone'),
        ('column', '_private_jobs.locked_by text'),
        ('column', '_private_jobs.revision integer'),
        ('column', '_private_jobs.flags jsonb'),
        ('column', '_private_jobs.is_available boolean'),
        ('column', '_private_job_queues.id integer'),
        ('column', '_private_job_queues.queue_name text'),
        ('column', '_private_job_queues.locked_at timestamp with time zone'),
        ('column', '_private_job_queues.locked_by text'),
        ('column', '_private_job_queues.is_available boolean'),
        ('column', '_private_tasks.id integer'),
        ('column', '_private_tasks.identifier text'),
        ('index', 'unique _private_jobs btree (id)'),
        ('index', 'unique _private_jobs btree (key)'),
        (
            'index',
            '_private_jobs btree (priority, run_at) INCLUDE (id, task_id, job_queue_id) '
            'WHERE (is_available = true)'
        ),
        (
            'index',
            '_private_jobs btree (priority, run_at) INCLUDE (id, task_id) '
            'WHERE ((is_available = true) AND (job_queue_id IS NULL))'
        ),
        ('index', 'unique _private_job_queues btree (id)'),
        ('index', 'unique _private_job_queues btree (queue_name)'),
        ('index', 'unique _private_tasks btree (id)'),
        ('index', 'unique _private_tasks btree (identifier)'),
        ('function', 'add_job'),
        ('function', 'add_jobs'),
        ('function', 'complete_jobs'),
        ('function', 'force_unlock_workers'),
        ('function', 'permanently_fail_jobs'),
        ('function', 'remove_job'),
        ('function', 'reschedule_jobs')
) as expected (kind, name)
where not exists (
    select
    from pg_catalog.pg_attribute
    join pg_catalog.pg_class as relation on relation.oid = attrelid
    where expected.kind = 'column' and attnum > 0 and not attisdropped
      and relation.relnamespace = to_regnamespace(':schema')
      and expected.name = format('%%s.%%s %%s', relname, attname, format_type(atttypid, atttypmod))
)
and not exists (
    select
    from pg_catalog.pg_index
    join pg_catalog.pg_class as relation on relation.oid = indrelid
    where expected.kind = 'index' and indisvalid
      and relation.relnamespace = to_regnamespace(':schema')
      and expected.name = case when indisunique then 'unique ' else '' end || relname || ' '
          || regexp_replace(pg_get_indexdef(indexrelid), '^.* USING ', '')
)
and not exists (
    select
    from pg_catalog.pg_proc
    where expected.kind = 'function'
      and pronamespace = to_regnamespace(':schema')
      and proname = expected.name
      and has_function_privilege(oid, 'execute')
)
