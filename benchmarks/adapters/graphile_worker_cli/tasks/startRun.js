// What the graphile-worker command runs in this folder: says when the first claim had come.
module.exports = () => console.log(String(process.hrtime.bigint()));
