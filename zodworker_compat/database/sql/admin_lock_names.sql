-- Waits until no open transaction has looked up a task or a queue, and keeps others from it.
--
-- Jobs refer to both by id, without a foreign key. A transaction that has added a job and not yet
-- committed is seen by nobody: if its task or its queue were deleted now, the job would be
-- committed, and never be claimed. graphile-worker 0.16.6 takes that risk. Whoever adds a job has
-- at least read the tables, so only this strongest lock waits for all of them.
--
-- While a lock is waited for, all claims and enqueues wait behind it: so for 100 ms at a time.
do $lock_names$
declare
    patience constant text := current_setting('lock_timeout');
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using
            errcode = 'invalid_transaction_state',
            message = 'cleanup needs the isolation level READ COMMITTED: under '
                || upper(current_setting('transaction_isolation'))
                || ' it cannot see the jobs added since the transaction began; nothing was deleted.';
    end if;
    for try in 1 .. 10 loop
        begin
            perform set_config('lock_timeout', '100ms', true);
            lock table :schema._private_tasks, :schema._private_job_queues in access exclusive mode;
            perform set_config('lock_timeout', patience, true);
            return;
        exception when lock_not_available then
            perform pg_sleep(0.2);
        end;
    end loop;
    raise exception using
        errcode = 'lock_not_available',
        message = 'cleanup found a transaction open that may have added jobs, for three seconds; '
            || 'nothing was deleted. Try again when it has ended.';
end
$lock_names$
