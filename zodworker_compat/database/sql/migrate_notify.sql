-- Running Node workers stop at a breaking revision that they do not know.
select pg_notify(
    'worker:migrate',
    json_build_object('migrationNumber', %(revision)s::integer, 'breaking', %(breaking)s::boolean)::text
)
