"""An S3-compatible server (moto's) as a process of its own, which can be told to fail, and counts what it is asked."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

CONTROL = "/__control__"
BUCKET = "bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class S3Server:
    """A running server with one empty bucket."""

    endpoint: str

    def fail(self, method: str, path: str, status: int, times: int, code: str = "") -> None:
        """Answer the next `times` requests of this method, whose path and query match, with this status.

        Status 0 ends the connection without an answer; -N answers in order, but after N seconds.
        """
        rule = {"method": method, "path": path, "status": status, "times": times, "code": code}
        self._control({"rule": rule})

    def reset(self) -> None:
        """Forget all rules and requests."""
        self._control({"reset": True})

    def requests(self) -> list[str]:
        """`METHOD path?query` of all since the reset."""
        found: list[str] = self._control({})
        return found

    def _control(self, message: dict[str, Any]) -> Any:
        request = urllib.request.Request(self.endpoint + CONTROL, json.dumps(message).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def running() -> Generator[S3Server, None, None]:
    """A server for as long as the generator is open."""
    env = {**os.environ, **ENVIRONMENT}
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=env)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        port = process.stdout.readline().decode().strip()
        assert port.isdigit(), "the server did not start"
        server = S3Server(f"http://127.0.0.1:{port}")
        urllib.request.urlopen(urllib.request.Request(f"{server.endpoint}/{BUCKET}", method="PUT"), timeout=30).close()
        yield server
    finally:
        process.stdin.close()  # it ends with us, also where we are killed
        process.stdout.close()
        process.kill()
        process.wait()


class Faulty:
    """The server's application, with failures in front of it."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application, self._lock = application, threading.Lock()
        self._rules: list[dict[str, Any]] = []
        self._log: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == CONTROL:
            return self._control(environ, start_response)
        asked = f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        with self._lock:
            self._log.append(f"{environ['REQUEST_METHOD']} {asked}")
            rule = next((r for r in self._rules if self._matches(r, environ["REQUEST_METHOD"], asked)), None)
            if rule is not None:
                rule["times"] -= 1
        if rule is None:
            return self._application(environ, start_response)
        if rule["status"] < 0:
            time.sleep(-rule["status"])
            return self._application(environ, start_response)
        if rule["status"] == 0:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("as the test wants it")
        length = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"].read(length)
        start_response(f"{rule['status']} As the test wants it", [("Content-Type", "application/xml")])
        text = f"<Error><Code>{rule['code']}</Code><Message>as the test wants it</Message></Error>"
        return [text.encode() if rule["code"] and environ["REQUEST_METHOD"] != "HEAD" else b""]

    def _matches(self, rule: dict[str, Any], method: str, asked: str) -> bool:
        return rule["times"] > 0 and rule["method"] in (method, "*") and re.search(rule["path"], asked) is not None

    def _control(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        message = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        with self._lock:
            if message.get("reset"):
                self._rules, self._log = [], []
            if "rule" in message:
                self._rules.append(message["rule"])
            answer = json.dumps(self._log).encode()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [answer]


def serve() -> None:
    """Serve on a free port, which is printed, until stdin ends."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").disabled = True
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a test makes fail is no news
    server = make_server("127.0.0.1", 0, Faulty(DomainDispatcherApplication(create_backend_app)), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    serve()
