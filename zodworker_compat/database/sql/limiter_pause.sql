insert into :schema.zodworker_paused_flags (flag) values (%(flag)s) on conflict do nothing
