"""Where the data folders are: `catalog`, `schemas`, `migrations` and `examples`.

They lie at the top of the repository and, in an installed wheel, in `zodworker_compat/data`.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """Return the data folder `name`, installed or in a checkout.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for parent in (_PACKAGE / "data", _PACKAGE.parent):
        if (parent / name).is_dir():
            return parent / name
    raise FileNotFoundError(
        f"zodworker_compat is incomplete: its data folder {name!r} is missing; reinstall it."
    )
