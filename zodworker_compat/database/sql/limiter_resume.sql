delete from :schema.zodworker_paused_flags where flag = %(flag)s
