-- Whoever moves an item's last_execution forward to a minute enqueues the job of that minute, in
-- the same statement; all others, Node too, find it moved already. The rows are locked in the order
-- of the items, as Node does, so that processes with the same crontab cannot deadlock.
with spec as (
    select *
    from json_to_recordset(%(specs)s::json) as spec (
        position integer, cron_identifier text, identifier text, payload text, queue_name text,
        run_at timestamptz, max_attempts integer, job_key text, priority integer, job_key_mode text
    )
),
won as (
    insert into :schema._private_known_crontabs as known (identifier, known_since, last_execution)
    select cron_identifier, %(minute)s::timestamptz, %(minute)s::timestamptz
    from spec
    order by position
    on conflict (identifier) do update
    set last_execution = excluded.last_execution
    where known.last_execution is null or known.last_execution < excluded.last_execution
    returning known.identifier
)
select due.position, job.id
from (
    select spec.* from spec join won on won.identifier = spec.cron_identifier order by spec.position
) as due
cross join lateral :schema.add_job(
    identifier => due.identifier,
    payload => due.payload::json,
    queue_name => due.queue_name,
    run_at => due.run_at,
    max_attempts => due.max_attempts,
    job_key => due.job_key,
    priority => due.priority,
    flags => null::text[],
    job_key_mode => due.job_key_mode
) as job
