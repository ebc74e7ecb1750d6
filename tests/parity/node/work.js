// node work.js VERSION URL SCHEMA: adds jobs as graphile-worker VERSION does, runs all jobs that are
// ready and prints, as JSON, what was added and the payload of each job that ran.
const [version, connectionString, schema] = process.argv.slice(2);
const { makeWorkerUtils, runOnce } = require(`graphile-worker-${version}`);

async function main() {
  const ran = [];
  const task = (payload) => ran.push(payload);
  const utils = await makeWorkerUtils({ connectionString, schema });
  const one = await utils.addJob("one", { from: "node" });
  const many = await (utils.addJobs ?? (() => []))([
    { identifier: "two", payload: { batch: 1 } },
    { identifier: "one", payload: { batch: 2 }, queueName: "q" },
    { identifier: "two", payload: { batch: 3 }, jobKey: "k" },
  ]);
  await utils.release();
  await runOnce({
    connectionString,
    schema,
    taskList: { one: task, two: task },
    noHandleSignals: true,
  });
  console.log(JSON.stringify({ one, many, ran }));
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
