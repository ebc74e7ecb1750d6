insert into :schema.migrations (id, breaking) values (%(revision)s, %(breaking)s)
