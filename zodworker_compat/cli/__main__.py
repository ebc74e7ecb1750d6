"""`python -m zodworker_compat.cli` is `zodworker`."""

from zodworker_compat.cli.main import main

main()
