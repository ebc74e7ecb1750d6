select id, status
from :schema.runs;
