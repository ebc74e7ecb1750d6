-- Wakes the workers: there may be jobs that they had to skip.
select pg_notify('jobs:insert', json_build_object('r', random(), 'count', 1)::text)
