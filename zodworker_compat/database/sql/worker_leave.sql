-- Takes a pool that holds nothing off the list.
delete from :schema.zodworker_workers where pool_id = %(pool_id)s
