-- Gives the slots of a job back, and clears away what crashed workers left of the same flags.
delete from :schema.zodworker_limiter_slots
where job_id = %(job_id)s
   or (flag = any (%(flags)s::text[]) and taken_at <= now() - %(window)s::interval)
