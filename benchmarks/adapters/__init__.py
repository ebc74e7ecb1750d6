"""One program per system, each used the way its documentation says.

Roles, as the first argument: `install` makes the system's tables; `work` runs its worker until
standard input is closed; `enqueue` adds jobs as it is asked to on standard input.
"""
