"""Hosts of their own on this machine: network namespaces, each on a cable that can be pulled."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen


def what_is_missing() -> str | None:
    """Return why this machine cannot have them; None if it can."""
    if not shutil.which("ip"):
        return "there is no `ip` (Debian's package iproute2)"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    return None


@frozen
class Host:
    """A network namespace."""

    name: str
    server: str
    """The address of this machine, as it is seen from there."""

    @property
    def command(self) -> list[str]:
        """What runs a command there."""
        return ["ip", "netns", "exec", self.name]

    def unplug(self) -> None:
        """Swallow all that is sent in either direction; nobody is told."""
        _ip("link", "set", f"{self.name}a", "down")

    def plug_in(self) -> None:
        """Undo that."""
        _ip("link", "set", f"{self.name}a", "up")


@contextmanager
def host() -> Iterator[Host]:
    """Make one, and delete it."""
    name = f"zw{secrets.token_hex(4)}"
    third, fourth = secrets.randbelow(256), 4 * secrets.randbelow(64)
    here, there = (f"198.18.{third}.{fourth + last}" for last in (1, 2))
    _ip("netns", "add", name)
    try:
        _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        _ip("address", "add", f"{here}/30", "dev", f"{name}a")
        _ip("link", "set", f"{name}a", "up")
        _ip("-n", name, "address", "add", f"{there}/30", "dev", f"{name}b")
        _ip("-n", name, "link", "set", f"{name}b", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        yield Host(name, here)
    finally:
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=60)
