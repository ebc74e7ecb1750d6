select :schema.force_unlock_workers(worker_ids => %(worker_ids)s::text[])
