select flag from :schema.zodworker_paused_flags where flag = any (%(flags)s::text[]) order by flag
