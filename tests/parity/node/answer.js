// node answer.js VERSION URL SCHEMA: calls graphile-worker VERSION, once for each line of stdin:
// [call, arguments] is answered with {result}, or with {error} and its SQLSTATE.
// `pool` and `worker` are the ids that jobs are locked by; times come and go as text.
const { createInterface } = require("node:readline");
const { types, Pool } = require("pg");

const [version, connectionString, schema] = process.argv.slice(-3);
const load = (file) => require(`graphile-worker-${version}/dist/${file}`);
const is16 = version === "0.16";

types.setTypeParser(types.builtins.TIMESTAMPTZ, (text) => text);

function spec({ runAt, ...others }) {
  return runAt === undefined ? others : { ...others, runAt: new Date(runAt) };
}

async function main() {
  const { Logger, runMigrations } = load("index");
  const pgPool = new Pool({ connectionString, max: 1 });
  const shared = { pgPool, schema, logger: new Logger(() => () => {}) };
  await runMigrations(shared);
  const [options] = await load("lib").getUtilsAndReleasersFromOptions(shared);
  const utils = await load("index").makeWorkerUtils(shared);
  const { withPgClient } = options;
  const fresh = () => ({ ...options }); // ids of tasks are remembered with an options object

  const calls = {
    addJob: (identifier, payload, rest) => utils.addJob(identifier, payload, spec(rest)),
    addJobWithoutPayload: (identifier, rest) => utils.addJob(identifier, undefined, spec(rest)),
    addJobs: (specs, preserve) => utils.addJobs(specs.map(spec), preserve),
    completeJobs: (ids) => utils.completeJobs(ids),
    permanentlyFailJobs: (ids, reason) => utils.permanentlyFailJobs(ids, reason),
    rescheduleJobs: (ids, { runAt, ...rest }) => utils.rescheduleJobs(ids, spec({ runAt, ...rest })),
    forceUnlockWorkers: (ids) => utils.forceUnlockWorkers(ids),
    cleanup: (tasks, taskIdentifiersToKeep) => utils.cleanup({ tasks, taskIdentifiersToKeep }),
    sweep: () => load("sql/resetLockedAt").resetLockedAt(options, withPgClient),
    claim: async (pool, identifiers, flags) => {
      const tasks = Object.fromEntries(identifiers.map((identifier) => [identifier, () => {}]));
      if (is16) {
        return load("sql/getJob").getJob(fresh(), withPgClient, tasks, pool, flags);
      }
      const get = load("sql/getJobs").batchGetJobs;
      return (await get(fresh(), withPgClient, tasks, pool, flags, 1))[0];
    },
    complete: async (pool, jobs) => {
      if (!is16) {
        return load("sql/completeJobs").batchCompleteJobs(options, withPgClient, pool, jobs);
      }
      for (const job of jobs) {
        await load("sql/completeJob").completeJob(options, withPgClient, pool, job);
      }
    },
    fail: async (pool, jobs, messages) => {
      if (!is16) {
        const specs = jobs.map((job, i) => ({ job, message: messages[i] }));
        return load("sql/failJobs").batchFailJobs(options, withPgClient, pool, specs);
      }
      for (const [i, job] of jobs.entries()) {
        await load("sql/failJob").failJob(options, withPgClient, pool, job, messages[i]);
      }
    },
    giveBack: (pool, jobs) =>
      load("sql/returnJobs").returnJobs(options, withPgClient, pool, jobs),
  };

  for await (const line of createInterface({ input: process.stdin })) {
    const [call, args] = JSON.parse(line);
    let answer;
    try {
      answer = { result: (await calls[call](...args)) ?? null };
    } catch (error) {
      const { code = null, constraint = null, message } = error;
      answer = { error: { sqlstate: code, constraint, message } };
    }
    console.log(JSON.stringify(answer));
  }
  await pgPool.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
