-- graphile-worker 0.17 changes nothing in the database; it marks that its workers are in use, and
-- those of 0.16 refuse to start from then on.
select 1;
