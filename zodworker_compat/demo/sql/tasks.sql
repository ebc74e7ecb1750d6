select id, status
from :schema.tasks;
