"""A model hub on this machine, with as much of the protocol as its library needs: for tests without a network."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "a" * 40


@dataclass
class FakeHub:
    """What the hub holds, and what was asked of it. `pace`: bytes a second of each file; 0: as fast as it goes."""

    url: str = ""
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    pace: int = 0
    sent: list[str] = field(default_factory=list)
    """the files that were sent whole"""
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub that lives inside."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            if path.startswith("/api/models/"):
                name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
                self._model(name, body)
                return
            name, _, rest = path.strip("/").partition("/resolve/")
            self._file(name, rest.partition("/")[2], body)

        def _model(self, name: str, body: bool) -> None:
            if name not in hub.models:
                return self._refuse(404, "RepoNotFound")
            files = hub.models[name]
            card = {"license": "mit"}
            told: dict[str, Any] = {
                "id": name,
                "sha": COMMIT,
                "cardData": card,
                "safetensors": {"parameters": {"F32": 1234}, "total": 1234},
                "siblings": [{"rfilename": file, "size": len(data)} for file, data in files.items()],
            }
            self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"}, body)

        def _file(self, name: str, file: str, body: bool) -> None:
            if name not in hub.models:
                return self._refuse(404, "RepoNotFound")
            if name in hub.gated:
                return self._refuse(403, "GatedRepo")
            if file not in hub.models[name]:
                return self._refuse(404, "EntryNotFound")
            data = hub.models[name][file]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            self._send(200, data, headers, body)
            if body:
                hub.sent.append(file)

        def _refuse(self, code: int, why: str) -> None:
            self._send(code, b"{}", {"X-Error-Code": why, "X-Error-Message": why}, True)

        def _send(self, code: int, data: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if not body or self.command == "HEAD":
                return
            step = max(hub.pace // 20, 1) if hub.pace else max(len(data), 1)
            for at in range(0, len(data), step):
                self.wfile.write(data[at : at + step])
                if hub.pace and len(data) > step:
                    time.sleep(0.05)

        def log_message(self, *args: object) -> None: ...

    return Handler
