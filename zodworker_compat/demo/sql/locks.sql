select
    (select count(*) from :queue._private_jobs where locked_at is not null)
    + (select count(*) from :queue._private_job_queues where locked_at is not null);
