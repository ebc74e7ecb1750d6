-- For the transaction: it reads only, and gives up in time.
select
    set_config('statement_timeout', %(milliseconds)s::text, true),
    set_config('transaction_read_only', 'on', true)
