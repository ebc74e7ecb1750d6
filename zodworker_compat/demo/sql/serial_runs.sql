-- How many runs of the serial queue were executed, and how many began before the last had ended.
select
    count(*),
    count(*) filter (where execution_started_at < previous_ended_at)
from (
    select
        execution_started_at,
        max(execution_ended_at) over (
            order by execution_started_at
            rows between unbounded preceding and 1 preceding
        ) as previous_ended_at
    from :schema.runs
    where queue_name = 'invoices' and execution_ended_at is not null
) as executions;
