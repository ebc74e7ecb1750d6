"""JavaScript's `undefined`, for payload classes."""

from enum import Enum
from typing import Final


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Final = Unset.UNSET
"""The default of an optional field that may hold `null`: omitted from the JSON, unlike `None`."""
