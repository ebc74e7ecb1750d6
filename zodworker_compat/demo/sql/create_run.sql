insert into :schema.runs (id, event_id, queue_name)
select 'run_' || id, id, case when name = 'invoice.issued' then 'invoices' end
from :schema.events
where id = %(event_id)s
on conflict (id) do nothing
returning id;
