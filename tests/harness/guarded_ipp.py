"""An IPP server that asks for a password (HTTP Basic) and then says yes to everything, with nothing in its answers.

It stands in for a CUPS whose passwords are the system's (PAM), which a test can't give anybody. It speaks no TLS.
Promises: `offered` has the user names and passwords that came with requests, in order, and None for one without.
"""

from __future__ import annotations

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tests.harness.waiting import LOCALHOST

_OK = b"\x02\x00\x00\x00"
_GROUP = b"\x01\x47\x00\x12attributes-charset\x00\x05utf-8\x48\x00\x1battributes-natural-language\x00\x02en\x03"


class GuardedIpp:
    """The server. `with GuardedIpp("alice", "right") as server:`."""

    def __init__(self, user: str, password: str) -> None:
        self.offered: list[tuple[str, str] | None] = []
        offered, right = self.offered, (user, password)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                offer = _offer(self.headers.get("Authorization", ""))
                offered.append(offer)
                if offer == right:
                    self._answer(200, _OK + request[4:8] + _GROUP)
                else:
                    self._answer(401, b"")

            def do_OPTIONS(self) -> None:
                self._answer(200, b"")  # an upgrade to TLS is asked for this way, and not given

            def _answer(self, code: int, body: bytes) -> None:
                self.send_response(code)
                if code == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="CUPS"')
                self.send_header("Content-Type", "application/ipp")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOCALHOST, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.address = f"{LOCALHOST}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _offer(header: str) -> tuple[str, str] | None:
    scheme, _, value = header.partition(" ")
    if scheme != "Basic":
        return None
    user, _, password = base64.b64decode(value).decode().partition(":")
    return user, password
