insert into :schema.outbox (id, recipient, kind)
values (%(id)s, %(recipient)s, %(kind)s);
