-- Takes a slot of every flag for the job, or none, and returns the flags that refuse it: those that
-- are full or paused. Under the locks of `limiter_lock.sql`, in a statement of its own, whose
-- snapshot therefore holds all slots taken before.
--
-- A slot counts while the pool that took it holds the job, and no longer than the window: a job is
-- claimed before it takes a slot, so whoever sees the slot sees the claim.
with wanted as (
    select flag, size
    from unnest(%(flags)s::text[], %(sizes)s::integer[]) as wanted (flag, size)
),
taken as (
    select slot.flag, count(*) as slots
    from :schema.zodworker_limiter_slots as slot
    join :schema._private_jobs as job on job.id = slot.job_id and job.locked_by = slot.pool_id
    where slot.flag = any (%(flags)s::text[])
      and slot.job_id <> %(job_id)s
      and slot.taken_at > now() - %(window)s::interval
    group by slot.flag
),
refused as (
    select wanted.flag
    from wanted
    left join taken on taken.flag = wanted.flag
    where coalesce(taken.slots, 0) >= wanted.size
       or exists (
           select from :schema.zodworker_paused_flags as paused where paused.flag = wanted.flag
       )
),
added as (
    insert into :schema.zodworker_limiter_slots (flag, job_id, pool_id, size)
    select flag, %(job_id)s, %(pool_id)s, size
    from wanted
    where not exists (select from refused)
    on conflict (flag, job_id) do update
    set pool_id = excluded.pool_id, size = excluded.size, taken_at = excluded.taken_at
)
select flag from refused
