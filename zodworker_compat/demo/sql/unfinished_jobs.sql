select count(*)
from :queue._private_jobs
where attempts < max_attempts or locked_at is not null;
