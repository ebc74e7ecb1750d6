"""The demo: trigger.dev's v2 flow over a small business schema, checked number by number.

>>> report = await run("postgresql://...", console=Console())
>>> sys.exit(report.exit_code)

`run` makes two schemas of its own on the server that `conninfo` names (their names carry a random
suffix), reads `examples/events.jsonl`, drives the flow with three ZodWorkers in this process,
shows progress on the console (live on a terminal, plain lines in a pipe), prints a table and a
list of checks, and drops both schemas, whatever happens: it handles SIGINT and SIGTERM itself.
"""

from zodworker_compat.demo.run import DemoReport, run

__all__ = ["DemoReport", "run"]
