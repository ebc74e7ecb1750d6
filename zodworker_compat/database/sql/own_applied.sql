select name from :schema.zodworker_migrations
