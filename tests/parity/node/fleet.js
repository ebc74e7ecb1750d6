// node fleet.js VERSION URL SCHEMA OPTIONS: a worker of graphile-worker VERSION whose handlers write
// what they do into the table `ledger`, as those of fleet_worker.py. OPTIONS are its RunnerOptions,
// with `tasks`, a list of identifiers, in place of taskList.
//
// Prints "ready" when it listens. Answers each line of stdin, a JSON list of [identifier, payload,
// spec], with a line: the list of the ids of the jobs that it has added. Stops when stdin is closed.
const { EventEmitter } = require("node:events");
const readline = require("node:readline");
const { setTimeout: sleep } = require("node:timers/promises");

const [version, connectionString, schema, given] = process.argv.slice(2);
const { run, Logger } = require(`graphile-worker-${version}`);
const { tasks, ...options } = JSON.parse(given);

async function handle(payload, { job, query }) {
  const { rows } = await query(
    `insert into ledger (side, identifier, job_id, attempt, queue, payload)
     values ('node', $1, $2, $3, $4, $5) returning id`,
    [job.task_identifier, job.id, job.attempts, payload.queue ?? null, JSON.stringify(payload)],
  );
  if (payload.seconds) await sleep(payload.seconds * 1000);
  while (payload.gate) {
    const open = await query("select from gates where name = $1", [payload.gate]);
    if (open.rowCount) break;
    await sleep(20);
  }
  const fails = job.attempts <= (payload.failures ?? 0);
  await query("update ledger set ended = clock_timestamp(), ok = $1 where id = $2", [
    !fails,
    rows[0].id,
  ]);
  if (fails) throw new Error("as planned");
}

// graphile-worker loses a keyed job that is being fetched at this moment: add_job() gives a row of
// nulls (trap T5).
async function add(runner, identifier, payload, spec) {
  for (;;) {
    const job = await runner.addJob(identifier, payload, spec);
    if (job.id !== null) return Number(job.id);
  }
}

async function main() {
  const events = new EventEmitter();
  events.on("pool:listen:success", () => console.log("ready"));
  const runner = await run({
    ...options,
    connectionString,
    schema,
    events,
    logger: new Logger(() => (level, message) => console.error(message)),
    taskList: Object.fromEntries(tasks.map((identifier) => [identifier, handle])),
    noHandleSignals: true,
  });
  const lines = readline.createInterface({ input: process.stdin });
  let running = true;
  const end = () => {
    running = false;
    lines.close();
    process.stdin.destroy();
  };
  runner.promise.then(end, end); // a breaking migration sets process.exitCode
  for await (const line of lines) {
    const ids = [];
    for (const job of JSON.parse(line)) ids.push(await add(runner, ...job));
    console.log(JSON.stringify(ids));
  }
  if (running) await runner.stop();
}

main().catch((error) => {
  console.error(error);
  process.exitCode ||= 1;
});
