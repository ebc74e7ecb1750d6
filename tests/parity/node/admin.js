// node admin.js VERSION URL SCHEMA CALLS: makes calls of WorkerUtils, given as a JSON list of
// [method, ...arguments], and prints their results as a JSON list.
const [version, connectionString, schema, calls] = process.argv.slice(2);
const { makeWorkerUtils } = require(`graphile-worker-${version}`);

async function main() {
  const utils = await makeWorkerUtils({ connectionString, schema });
  const results = [];
  for (const [method, ...args] of JSON.parse(calls)) {
    results.push((await utils[method](...args)) ?? null);
  }
  await utils.release();
  console.log(JSON.stringify(results));
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
