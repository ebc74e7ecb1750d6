// node recur.js VERSION URL SCHEMA CRONTAB: runs graphile-worker VERSION with that crontab and a task
// that nobody enqueues, prints "started" when its cron has started, and stops when stdin is closed.
const { EventEmitter } = require("node:events");

const [version, connectionString, schema, crontab] = process.argv.slice(2);
const { run } = require(`graphile-worker-${version}`);

async function main() {
  const events = new EventEmitter();
  events.on("cron:started", () => console.log("started"));
  const runner = await run({
    connectionString,
    schema,
    crontab,
    taskList: { nobody: () => {} },
    noHandleSignals: true,
    events,
  });
  process.stdin.resume();
  process.stdin.on("end", () => runner.stop());
  await runner.promise;
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
