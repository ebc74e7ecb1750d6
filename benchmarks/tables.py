"""The tables of each system: how the harness fills and empties them, alike for all."""

from attrs import frozen

TRIVIAL = "json_build_object('id', 'job_' || i, 'n', i, 'urgent', false)"
"""The payload of a trivial job in SQL; as `payload()` of the adapters."""
EMAIL = """'{
    "to": "ops@example.com", "email": "alert-attempt", "taskIdentifier": "import-customers",
    "fileName": "src/trigger/importCustomers.ts", "exportName": "importCustomers",
    "version": "20240611.4", "environment": "production", "organization": "Example GmbH",
    "error": {"message": "ECONNRESET: the peer closed the connection", "name": "FetchError",
              "stackTrace": "FetchError: ECONNRESET\\n    at importCustomers (importCustomers.ts:41:11)"},
    "attemptLink": "https://cloud.example.com/projects/v3/proj_1/runs/run_1/attempts/1"
}'::json"""
"""A payload of `scheduleEmail`, a union of eight kinds of mail; this is the fourth."""


@frozen
class Tables:
    """SQL; `:jobs`, `:task`, `:payload` and `:queues` are replaced."""

    empty: str
    fill: str
    """The last statement notifies the workers, if nothing else does."""
    left: str
    """A condition on `job`, true while it has not been run and settled."""
    jobs: str
    """The table of jobs."""
    analyze: str
    """The tables whose statistics the claim needs."""


GRAPHILE = Tables(
    empty="truncate graphile_worker._private_jobs, graphile_worker._private_job_queues",
    fill="""
        insert into graphile_worker._private_tasks (identifier) values (':task')
        on conflict do nothing;
        insert into graphile_worker._private_job_queues (queue_name)
        select 'queue_' || i from generate_series(0, :queues - 1) as i
        on conflict do nothing;
        insert into graphile_worker._private_jobs (task_id, job_queue_id, payload)
        select task.id, queue.id, :payload
        from generate_series(1, :jobs) as i
        join graphile_worker._private_tasks as task on task.identifier = ':task'
        left join graphile_worker._private_job_queues as queue
            on queue.queue_name = 'queue_' || i % nullif(:queues, 0);
        select pg_notify('jobs:insert', json_build_object('r', random(), 'count', :jobs)::text)
    """,
    left="true",
    jobs="graphile_worker._private_jobs",
    analyze="graphile_worker._private_jobs, graphile_worker._private_job_queues",
)
PROCRASTINATE = Tables(
    empty="truncate procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers",
    fill="""
        insert into procrastinate_jobs (queue_name, task_name, args)
        select 'default', ':task', :payload::jsonb from generate_series(1, :jobs) as i
    """,
    left="job.status in ('todo', 'doing')",
    jobs="procrastinate_jobs",
    analyze="procrastinate_jobs",
)
PGQUEUER = Tables(
    empty="truncate pgqueuer, pgqueuer_log",
    fill="""
        insert into pgqueuer (priority, status, entrypoint, payload)
        select 0, 'queued', ':task', convert_to((:payload)::text, 'UTF8')
        from generate_series(1, :jobs) as i
    """,
    left="true",
    jobs="pgqueuer",
    analyze="pgqueuer",
)
TABLES = {"graphile": GRAPHILE, "procrastinate": PROCRASTINATE, "pgqueuer": PGQUEUER}

STUCK = """
    insert into graphile_worker._private_tasks (identifier) values ('trivial')
    on conflict do nothing;
    insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at)
    values ('stuck_0', 'another worker', now()), ('stuck_1', 'another worker', now());
    insert into graphile_worker._private_jobs (task_id, job_queue_id, payload, run_at)
    select task.id, queue.id, '{}', now() - interval '1 hour'
    from generate_series(1, :jobs) as i
    join graphile_worker._private_tasks as task on task.identifier = 'trivial'
    join graphile_worker._private_job_queues as queue on queue.queue_name = 'stuck_' || i % 2
"""
"""Jobs that come first and cannot run: their two queues are locked."""
