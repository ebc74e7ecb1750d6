-- A recoverer that freezes or is cut off here must not keep the others from their work.
set local idle_in_transaction_session_timeout = '5s'
