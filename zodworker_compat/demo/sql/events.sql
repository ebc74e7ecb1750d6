select id, jsonb_build_object('payload', payload, 'delivered', delivered_at is not null)
from :schema.events;
