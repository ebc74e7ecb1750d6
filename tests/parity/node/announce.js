// node announce.js VERSION URL SCHEMA CALLS: makes calls of WorkerUtils, given as a JSON list of
// [method, ...arguments] or the text of a statement, and after each notifies "end".
const [version, connectionString, schema, calls] = process.argv.slice(2);
const { makeWorkerUtils } = require(`graphile-worker-${version}`);

async function main() {
  const utils = await makeWorkerUtils({ connectionString, schema });
  const query = (text) => utils.withPgClient((client) => client.query(text));
  for (const call of JSON.parse(calls)) {
    if (typeof call === "string") await query(call);
    else await utils[call[0]](...call.slice(1));
    await query(`select pg_notify('jobs:insert', 'end')`);
  }
  await utils.release();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
