// node payloads.js VERSION URL SCHEMA: answers each line of JSON, [question, value], with one line.
//
// "write": adds a job of the task "node" for each value, and answers with their ids. A value is
// {is: JSON} or {date: milliseconds} or {undefined: true} or {items: [value]} or {members: [[key, value]]}.
// "read": runs all jobs of the task "python", and answers with JSON.stringify of each payload, by id.
const { createInterface } = require("node:readline");

const [version, connectionString, schema] = process.argv.slice(-3);
const { makeWorkerUtils, runOnce, Logger } = require(`graphile-worker-${version}`);

const logger = new Logger(() => () => {});

const build = (value) =>
  "date" in value ? new Date(value.date)
  : "undefined" in value ? undefined
  : "items" in value ? value.items.map(build)
  : "members" in value ? Object.fromEntries(value.members.map(([key, member]) => [key, build(member)]))
  : value.is;

// As ZodWorker did, whose `null` stays null; graphile-worker's addJob makes {} of it.
const zodWorker = (utils, payload) =>
  utils.withPgClient(async (client) => {
    const text = `select id from ${schema}.add_job(identifier => 'node', payload => $1::json)`;
    const { rows } = await client.query(text, [JSON.stringify(payload)]);
    return rows[0];
  });

// addJobs has PostgreSQL take the payloads out of one document: NUL and lone surrogates are errors then.
const isHostile = (payload) => /\\u(0000|d[89a-f])/.test(JSON.stringify(payload));

async function write(utils, values) {
  const ids = [];
  const together = [];
  for (const [index, payload] of values.map(build).entries()) {
    if (payload === null || index % 3 === 0) ids[index] = (await zodWorker(utils, payload)).id;
    else if (index % 3 === 1 || !utils.addJobs || isHostile(payload))
      ids[index] = (await utils.addJob("node", payload)).id;
    else together.push({ identifier: "node", payload, priority: index });
  }
  for (const job of together.length ? await utils.addJobs(together) : []) ids[job.priority] = job.id;
  return ids;
}

async function read() {
  const texts = {};
  const python = (payload, helpers) => {
    texts[helpers.job.id] = JSON.stringify(payload);
  };
  await runOnce({ connectionString, schema, logger, taskList: { python }, noHandleSignals: true });
  return texts;
}

async function main() {
  const utils = await makeWorkerUtils({ connectionString, schema, logger });
  for await (const line of createInterface({ input: process.stdin })) {
    const [question, value] = JSON.parse(line);
    const answer = question === "write" ? write(utils, value) : read();
    process.stdout.write(JSON.stringify(await answer.catch((error) => ({ error: error.stack }))) + "\n");
  }
  await utils.release();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
