// node graphile_worker.js install|work|enqueue URL SETTINGS: graphile-worker, see common.py, which
// does the same for Python. SETTINGS: {"version": "0.16" or "0.17", "worker": options of the preset}.
const readline = require("node:readline");
const { setTimeout: sleep } = require("node:timers/promises");

const [role, connectionString, json] = process.argv.slice(2);
const settings = JSON.parse(json);
const { Logger, makeWorkerUtils, run } = require(`graphile-worker-${settings.version}`);

const TELL_EVERY = 5;
const now = () => Number(process.hrtime.bigint());
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const payload = (n) => ({ id: `job_${n}`, n, urgent: false });

let count = 0;
let started = [];
let due = false;
function tally() {
  count += 1;
  if (!due) {
    due = true;
    setTimeout(() => {
      due = false;
      say({ count, started });
      started = [];
    }, TELL_EVERY);
  }
}

const taskList = {
  trivial: async () => tally(),
  scheduleEmail: async () => tally(),
  wait: async () => {
    await sleep(1);
    tally();
  },
  flaky: async ({ n }) => {
    tally();
    if (n % 10 === 0) throw new Error("one job in ten fails");
  },
  probe: async ({ n }) => {
    started.push([n, now()]);
    tally();
  },
};

async function install() {
  const utils = await makeWorkerUtils({ connectionString });
  await utils.migrate();
  await utils.release();
}

async function work() {
  process.stdin.resume().on("end", () => process.exit(0));
  await run({
    preset: { worker: { connectionString, ...settings.worker } },
    taskList,
    logger: new Logger(() => () => {}),
  });
  say({ ready: true });
}

async function enqueue() {
  const utils = await makeWorkerUtils({ connectionString });
  const oneByOne = async (jobs) => {
    for (let n = 0; n < jobs; n++) await utils.addJob("trivial", payload(n));
  };
  const probe = async (jobs) => {
    const sent = [];
    for (let n = 0; n < jobs; n++) {
      const begin = now();
      await utils.addJob("probe", payload(n));
      sent.push([n, begin, now()]);
      await sleep(8 + Math.random() * 4);
    }
    return sent;
  };
  say({ ready: true });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { do: kind, jobs, callers = 1 } = JSON.parse(line);
    if (kind === "probe") {
      say({ sent: await probe(jobs) });
      continue;
    }
    const specs = Array.from({ length: jobs }, (_, n) => ({
      identifier: "trivial",
      payload: payload(n),
    }));
    const begin = now();
    if (kind === "bulk") await utils.addJobs(specs);
    else await Promise.all(Array.from({ length: callers }, () => oneByOne(jobs / callers)));
    say({ seconds: (now() - begin) / 1e9 });
  }
  process.exit(0);
}

({ install, work, enqueue })[role]().catch((error) => {
  console.error(error);
  process.exit(1);
});
