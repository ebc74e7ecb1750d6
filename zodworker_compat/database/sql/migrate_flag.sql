update :schema.migrations set breaking = true where id = any(%(breaking)s) and not breaking
