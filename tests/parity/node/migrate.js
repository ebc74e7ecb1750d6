// node migrate.js VERSION URL SCHEMA: installs or updates the schema as graphile-worker VERSION.
const [version, connectionString, schema] = process.argv.slice(2);
const { runMigrations } = require(`graphile-worker-${version}`);

runMigrations({ connectionString, schema }).then(
  () => process.exit(0),
  (error) => {
    console.error(error.message);
    process.exit(1);
  },
);
