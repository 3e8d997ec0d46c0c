"""The requests of the load tests: the same bytes are checked first and timed then."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

MODERN = "2026-07-28"
LEGACY = "2025-11-25"

# Where the id of a request goes into what it asks.
ID = "@id@"
# For calls that are told how they get on.
PROGRESS = {"progressToken": ID}

_IDS = count(1)


class WrongAnswer(RuntimeError):
    """An answer that must not be timed."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def message(self) -> dict:
        """The JSON-RPC response in the body, which may be an event stream."""
        if self.headers.get_content_type() != "text/event-stream":
            return json.loads(self.body)
        lines = self.body.decode().splitlines()
        events = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:") and line[5:].strip()]
        return next(event for event in events if "result" in event or "error" in event)


@dataclass(frozen=True)
class Request:
    """One HTTP request; a body is split wherever the id of its message goes."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: tuple[str, ...] | None = None

    def send(self, host: str, id: int | None = None) -> Answer:
        body = None if self.body is None else self.text(next(_IDS) if id is None else id)
        connection = http.client.HTTPConnection(host, timeout=30)
        try:
            connection.request(self.method, self.path, body, self.headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def wire(self, host: str, id_length: int) -> list[str]:
        """What goes over the wire, split where an id of so many digits goes."""
        first, *others = self.body or ("",)
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body is not None:
            length = len(first) + sum(id_length + len(other) for other in others)
            lines.append(f"Content-Length: {length}")
        return ["\r\n".join(lines) + "\r\n\r\n" + first, *others]

    def text(self, id: int) -> str:
        """The body with its id."""
        return str(id).join(self.body or ("",))


def modern(path: str, method: str, name: str | None = None, meta: dict | None = None, **params) -> Request:
    """A request of 2026-07-28, which carries all there is to know."""
    meta = {
        **(meta or {}),
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "loadtests", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    if name is not None:
        params = {"name": name, **params}
    headers = {**_common(), "MCP-Protocol-Version": MODERN, "Mcp-Method": method}
    if name is not None:
        headers["Mcp-Name"] = name
    return Request("POST", path, headers, _message(method, {**params, "_meta": meta}))


def legacy(path: str, session: str | None, method: str, meta: dict | None = None, **params) -> Request:
    """A request of 2025-11-25, in a session unless the server gives out none."""
    headers = {**_common(), "MCP-Protocol-Version": LEGACY}
    if session is not None:
        headers["Mcp-Session-Id"] = session
    if meta is not None:
        params["_meta"] = meta
    return Request("POST", path, headers, _message(method, params))


def initialize(path: str) -> Request:
    """The first request of a session."""
    params = {
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": {"name": "loadtests", "version": "1"},
    }
    return Request("POST", path, _common(), _message("initialize", params))


def initialized(path: str, session: str | None) -> Request:
    """The notification that follows it."""
    headers = {**_common(), "MCP-Protocol-Version": LEGACY}
    if session is not None:
        headers["Mcp-Session-Id"] = session
    notification = '{"jsonrpc":"2.0","method":"notifications/initialized"}'
    return Request("POST", path, headers, (notification,))


def open_session(host: str, path: str) -> str:
    """Opens a session as a client does, and returns its id."""
    session = shake_hands(host, path)
    if session is None:
        raise WrongAnswer("initialize: no session")
    return session


def shake_hands(host: str, path: str) -> str | None:
    """The same at servers that need not give out a session."""
    answer = initialize(path).send(host)
    if answer.status != 200:
        raise WrongAnswer(f"initialize: {answer.status} {answer.body[:500]!r}")
    session = answer.headers.get("Mcp-Session-Id")
    noted = initialized(path, session).send(host)
    if noted.status != 202:
        raise WrongAnswer(f"notifications/initialized: {noted.status} {noted.body[:500]!r}")
    return session


def open_sessions(host: str, path: str, number: int) -> list[str]:
    """So many, several at a time."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: open_session(host, path), range(number)))


def end_session(host: str, path: str, session: str) -> None:
    Request("DELETE", path, {"MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": session}).send(host)


def _common() -> dict[str, str]:
    return {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def _message(method: str, params: dict) -> tuple[str, ...]:
    message = {"jsonrpc": "2.0", "id": ID, "method": method, "params": params}
    return tuple(json.dumps(message, separators=(",", ":")).split(json.dumps(ID)))
