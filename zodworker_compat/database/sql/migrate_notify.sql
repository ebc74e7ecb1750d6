-- Running Node workers stop at a breaking revision that they do not know.
select pg_notify(
    'worker:migrate',
    format('{"migrationNumber":%%s,"breaking":%%s}', %(revision)s::integer, to_json(%(breaking)s::boolean))
)
