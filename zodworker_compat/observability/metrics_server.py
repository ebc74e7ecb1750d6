"""A small HTTP server in threads of its own, which answers even if the event loop is blocked."""

import logging
import socket
import socketserver
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

from zodworker_compat.errors import ConfigurationError

logger = logging.getLogger(__name__)


class Response(NamedTuple):
    """What is answered."""

    status: int
    content_type: str
    body: bytes


Route = Callable[[str], Response]
"""From the header Accept to what is answered."""


class MetricsServer:
    """Serves some paths until it is closed; `port` is the one that it has.

    Args:
        routes: what is answered, by path.
        host: the address to listen on.
        port: 0 takes any free one.

    Raises:
        ConfigurationError: the port is taken, or the address is not this machine's.
    """

    def __init__(self, routes: Mapping[str, Route], host: str, port: int) -> None:
        try:
            family, *_, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._server = _Server(family, address[:2], _handler(routes))
        except (OSError, OverflowError, UnicodeError) as error:
            raise ConfigurationError(
                f"Metrics cannot be served on {host}, port {port}: {error}. Give another port or "
                "address (--metrics-port, --metrics-host), or end what has taken this one."
            ) from error
        self.host, self.port = host, int(self._server.server_address[1])
        Thread(
            target=self._server.serve_forever, name="zodworker-metrics-server", daemon=True
        ).start()

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def close(self) -> None:
        """Stop; a request that is being answered is cut off at the end of the process."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, family: int, address: Any, handler: Any) -> None:
        self.address_family = family
        super().__init__(address, handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer asks the DNS for its own name

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        logger.debug("A request from %s was cut off", client_address)


def _handler(routes: Mapping[str, Route]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10
        server_version = "zodworker"
        sys_version = ""

        def do_GET(self) -> None:
            response = self._respond()
            self.send_response(response.status)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.body)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name there
            logger.debug(format, *arguments)

        def _respond(self) -> Response:
            route = routes.get(self.path.partition("?")[0])
            if route is None:
                return Response(404, "text/plain", f"There is: {' '.join(routes)}\n".encode())
            try:
                return route(self.headers.get("Accept", ""))
            except Exception:
                logger.exception("%s failed", self.path)
                return Response(500, "text/plain", b"An error; the log has it.\n")

    return Handler
