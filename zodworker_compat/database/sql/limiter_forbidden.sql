-- The flags that are full, by the size that their last taker knew, and those that are paused.
-- What counts is said in `limiter_take.sql`.
select slot.flag
from :schema.zodworker_limiter_slots as slot
join :schema._private_jobs as job on job.id = slot.job_id and job.locked_by = slot.pool_id
where slot.taken_at > now() - %(window)s::interval
group by slot.flag
having count(*) >= (array_agg(slot.size order by slot.taken_at desc))[1]
union
select flag from :schema.zodworker_paused_flags
