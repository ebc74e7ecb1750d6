select id, kind || ' to ' || recipient || case when sent_at is null then ', not sent' else ', sent' end
from :schema.outbox;
