"""A TCP proxy that can be told to drop connections, or to swallow what goes either way."""

import asyncio
import socket
from contextlib import suppress


class Proxy:
    """Passes connections on to a server, until it is told not to.

    `open_up` and `open_down` say whether bytes pass to the server and to the client. A closed
    direction is a network that swallows packets: nobody is told, and what was sent waits, as it does
    in a kernel that sends it again and again.
    """

    def __init__(self, port: int) -> None:
        """`port` is the server's, on this machine."""
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        """Where it listens."""
        self.open_up = asyncio.Event()
        self.open_down = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self.heal()
        self._serving = asyncio.create_task(self._listen())

    def heal(self) -> None:
        """Let everything pass."""
        self.open_up.set()
        self.open_down.set()

    def cut(self) -> int:
        """Reset all connections on both sides; returns how many there were."""
        for task in self._connections:
            task.cancel()
        return len(self._connections)

    async def stop(self) -> None:
        """End it."""
        self._serving.cancel()
        self.cut()
        await asyncio.wait([self._serving, *self._connections])
        self._listening.close()

    async def _listen(self) -> None:
        async with await asyncio.start_server(self._serve, sock=self._listening) as server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            with suppress(OSError, asyncio.CancelledError):
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
                writers.append(up_writer)
                ways = [
                    asyncio.ensure_future(_pass_on(reader, up_writer, self.open_up)),
                    asyncio.ensure_future(_pass_on(up_reader, writer, self.open_down)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.wait(ways)
        finally:
            for each in writers:
                each.transport.abort()
            self._connections.discard(task)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event
) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            await is_open.wait()
            writer.write(data)
            await writer.drain()
        await is_open.wait()
