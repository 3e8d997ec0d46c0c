"""Clients of the cluster: one request of each kind, and many of them at once.

Every request is made from what the protocol says, without a library: what is counted here is what came over the wire.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

LEGACY = "2025-11-25"
MODERN = "2026-07-28"
PATH = "/mcp/demo"
TIMEOUT_S = 20.0
Address = tuple[str, int]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def node(self) -> str:
        """The node that answered; empty when none did."""
        return self.headers.get("x-mcp-fleet-node", "")

    def json(self) -> Any:
        return json.loads(self.body)

    def message(self) -> Any:
        """The JSON-RPC answer, whether it came alone or as the last event of a stream."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            data = [line[5:] for line in self.body.decode().splitlines() if line.startswith("data:")]
            return json.loads(data[-1])
        return self.json()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def send(self, connection: http.client.HTTPConnection) -> Answer:
        connection.request(self.method, self.path, self.body, {"Host": "localhost", **self.headers})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())

    def send_to(self, address: Address) -> Answer:
        """On a connection of its own."""
        connection = connect(address)
        try:
            return self.send(connection)
        finally:
            connection.close()


def connect(address: Address, timeout: float = TIMEOUT_S) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(*address, timeout=timeout)


def rest_list() -> Request:
    return Request("GET", f"{PATH}/tools/list")


def rest_call(text: str) -> Request:
    return _post(f"{PATH}/tools/call", _echo(text))


def modern(method: str, params: dict[str, Any], **headers: str) -> Request:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "compose", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return _post(PATH, message, {"Mcp-Protocol-Version": MODERN, "Mcp-Method": method, **headers})


def modern_list() -> Request:
    return modern("tools/list", {})


def modern_call(text: str) -> Request:
    return modern("tools/call", _echo(text), **{"Mcp-Name": "echo_message"})


def legacy(session: str, method: str, params: dict[str, Any], message_id: int | None = 1) -> Request:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if message_id is not None:
        message["id"] = message_id
    return _post(PATH, message, _in_session(session))


def legacy_call(session: str, text: str) -> Request:
    return legacy(session, "tools/call", _echo(text))


def legacy_end(session: str) -> Request:
    return Request("DELETE", PATH, _in_session(session))


def open_session(address: Address) -> str:
    """A legacy session's id, the handshake done."""
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "compose", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    answer = _post(PATH, message).send_to(address)
    if answer.status != 200:
        raise RuntimeError(f"initialize: {answer}")
    session = answer.headers["mcp-session-id"]
    answer = legacy(session, "notifications/initialized", {}, None).send_to(address)
    if answer.status != 202:
        raise RuntimeError(f"notifications/initialized: {answer}")
    return session


def has_tools(answer: Answer) -> bool:
    """Whether it is the demo server's list, in any shape."""
    if answer.status != 200:
        return False
    told = answer.message()
    tools = told if isinstance(told, list) else told.get("result", {}).get("tools", [])
    return {"say_hello", "echo_message"} <= {tool["name"] for tool in tools}


def has_echoed(answer: Answer, text: str) -> bool:
    """Whether it is the result of that call, in any shape."""
    if answer.status != 200:
        return False
    told = answer.message()
    result = told.get("result", told)
    return not result.get("isError") and any(text in block.get("text", "") for block in result.get("content", []))


def _echo(text: str) -> dict[str, Any]:
    return {"name": "echo_message", "arguments": {"message": text}}


def _post(path: str, document: Any, headers: dict[str, str] | None = None) -> Request:
    own = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    return Request("POST", path, {**own, **(headers or {})}, json.dumps(document).encode())


def _in_session(session: str) -> dict[str, str]:
    return {"Mcp-Session-Id": session, "Mcp-Protocol-Version": LEGACY, "Accept": "application/json, text/event-stream"}


class Traffic:
    """Clients that send one request after the other, of every kind, until they are told to stop.

    A request is sent once more, on a new connection, when the connection was refused, or when it broke or the load
    balancer says so (502, 503) before there was an answer: the tool is read-only, so its callers may.
    """

    KINDS = 5
    AGAIN = (502, 503)

    def __init__(self, address: Address, clients: int) -> None:
        self._address = address
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._sent = itertools.count(1)
        self.answered: Counter[str] = Counter()
        self.repeated: list[str] = []
        self.failed: list[str] = []
        self.slowest_s = 0.0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT_S)

    def total(self) -> int:
        with self._lock:
            return self.answered.total()

    def by_node(self) -> Counter[str]:
        with self._lock:
            return Counter(self.answered)

    def _run(self) -> None:
        try:
            session = open_session(self._address)
        except Exception as error:
            self._fail(f"no session: {error!r}")
            return
        connection = connect(self._address)
        # The pause leaves the machine's processors to the cluster.
        while not self._stopping.wait(0.005):
            number = next(self._sent)
            text = f"message {number}"
            kind = number % self.KINDS
            request = [rest_list(), rest_call(text), modern_list(), modern_call(text), legacy_call(session, text)][kind]
            begun = time.monotonic()
            try:
                answer = self._send(connection, request)
            except (OSError, http.client.HTTPException) as error:
                self._fail(f"{request.method} {request.path}: {error!r}")
                continue
            is_right = has_tools(answer) if kind in (0, 2) else has_echoed(answer, text)
            if not is_right:
                self._fail(f"{request.method} {request.path} {request.body!r}: {answer}")
                continue
            with self._lock:
                self.answered[answer.node] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, request: Request) -> Answer:
        try:
            answer = request.send(connection)
            if answer.status not in self.AGAIN:
                return answer
            why = f"status {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            why = repr(error)
        with self._lock:
            self.repeated.append(f"{request.method} {request.path} {request.headers.get('Mcp-Method', '')}: {why}")
        return request.send(connection)

    def _fail(self, why: str) -> None:
        with self._lock:
            self.failed.append(why)
