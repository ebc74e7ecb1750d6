"""What a handler's annotation says of its payload."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from attrs import frozen

from zodworker_compat.errors import ConfigurationError
from zodworker_compat.handlers import payload_type_of


@frozen
class A:
    id: str


@frozen
class B:
    id: str


async def typed(payload: A, job: Any, helpers: Any) -> None: ...
def quoted(payload: "A | B") -> None: ...
def plain(payload: dict[str, Any]) -> None: ...
def bare(payload) -> None: ...


@dataclass
class C:
    id: str


def of_a_dataclass(payload: C) -> None: ...
def misspelt(payload: "Missing") -> None: ...  # noqa: F821


class Handler:
    def method(self, payload: A) -> None: ...
    def __call__(self, payload: B) -> None: ...


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (typed, A),
        (quoted, A | B),
        (plain, None),
        (bare, None),
        (Handler().method, A),
        (Handler(), B),
        (partial(typed, helpers=None), A),
        (lambda payload: None, None),
        (lambda: None, None),
        (print, None),
    ],
)
def test_only_attrs_classes_are_structured_into(handler: Any, expected: Any) -> None:
    assert payload_type_of(handler) == expected


def test_an_annotation_that_cannot_be_found_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"misspelt.*'Missing'.*payload_type"):
        payload_type_of(misspelt)


def test_a_dataclass_is_refused_before_a_job_meets_it() -> None:
    with pytest.raises(ConfigurationError, match=r"of_a_dataclass.*attrs classes only"):
        payload_type_of(of_a_dataclass)
