lock table :schema.migrations in share row exclusive mode
