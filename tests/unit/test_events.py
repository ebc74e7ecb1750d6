"""The emitter of `worker.events`, without a worker."""

import asyncio

import attrs
import pytest

from zodworker_compat import ConfigurationError, Events
from zodworker_compat.events import EVENTS, Event

HERE = Event(pool_id="pool-1")


def test_listeners_are_called_in_the_order_of_their_registration() -> None:
    events, seen = Events(), []
    events.on("stop", lambda event: seen.append(("first", event)))

    @events.on("stop")
    def second(event: Event) -> None:
        seen.append(("second", event))

    events.emit("stop", HERE)
    events.emit("pool:create", HERE)
    assert seen == [("first", HERE), ("second", HERE)]


def test_off_takes_one_registration_back() -> None:
    events, seen = Events(), []
    for _ in "12":
        events.on("stop", seen.append)
    events.off("stop", seen.append)
    events.emit("stop", HERE)
    assert (seen, events.heard) == ([HERE], {"stop"})
    events.off("stop", seen.append)
    events.off("stop", seen.append)
    events.emit("stop", HERE)
    assert (seen, events.heard) == ([HERE], set())


def test_a_listener_may_take_itself_back() -> None:
    events, seen = Events(), []

    def once(event: Event) -> None:
        events.off("stop", once)
        seen.append("once")

    events.on("stop", once)
    events.on("stop", lambda _event: seen.append("always"))
    events.emit("stop", HERE)
    events.emit("stop", HERE)
    assert seen == ["once", "always", "always"]


def test_an_unknown_event_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigurationError, match=r"'job:complet'.*Did you mean 'job:complete'"):
        Events().on("job:complet", print)


async def test_close_cancels_listeners_that_do_not_end() -> None:
    events, ended = Events(), []

    @events.on("stop")
    async def endless(event: Event) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(event)
            raise

    await events.close(0.01)
    events.emit("stop", HERE)
    await asyncio.sleep(0)
    await events.close(0.01)
    await asyncio.sleep(0)
    assert ended == [HERE]


@pytest.mark.parametrize("payload", sorted(set(EVENTS.values()), key=str), ids=lambda c: c.__name__)
def test_payloads_are_frozen_and_say_whose_they_are(payload) -> None:
    fields = attrs.fields_dict(payload)
    event = payload(**dict.fromkeys(fields, "x"))
    assert event.pool_id == "x"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.pool_id = "y"
