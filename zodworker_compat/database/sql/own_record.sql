insert into :schema.zodworker_migrations (id, name) values (%(id)s, %(name)s)
