"""trigger.dev's ZodWorker for Python: typed jobs on graphile-worker's PostgreSQL tables."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zodworker_compat.api import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the names of `zodworker_compat.api` at their first use: `zodworker --help` needs none."""
    if name == "__all__":  # `from zodworker_compat import *`
        return import_module("zodworker_compat.api").__all__
    if name.islower():  # a submodule, which `from zodworker_compat import signals` asks for first
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    api = import_module("zodworker_compat.api")
    if name not in api.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *import_module("zodworker_compat.api").__all__]
