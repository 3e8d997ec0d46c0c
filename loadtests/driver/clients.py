"""Clients of a soak. Each request goes to any node; a refused connection is tried
once more at another, as a load balancer or a client would."""

import http.client
import json
import random
import socket
import threading
import time
from dataclasses import dataclass, field

from . import mcp
from .book import Book
from .mcp import Answer, Request, WrongAnswer
from .nodes import Nodes

# A client pauses so long between requests, on average, in seconds.
_PAUSE = 0.1
# A session is used for so many requests.
_SESSION = 300
# A stream is silent no longer than this: nodes send comments.
_SILENCE = 40
# A stream that stood before a change and so long after it has heard of it.
_HEARS_WITHIN = 75


@dataclass
class Crowd:
    """All clients; they run until stopped."""

    nodes: Nodes
    book: Book
    stopped: threading.Event = field(default_factory=threading.Event)
    # When the list changed, and to which version.
    changes: list[tuple[float, int]] = field(default_factory=list)
    listeners: list["Listener"] = field(default_factory=list)
    converged: list[dict] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, upstream: str) -> None:
        for _ in range(4):
            self._run(self.call)
            self._run(self.list)
            self._run(self.use_sessions)
        for server in ("changing", "changing-sessions", "changing"):
            listener = Listener(self, server)
            self.listeners.append(listener)
            self._run(listener.run)
        self._run(lambda: self.change(upstream))

    def stop(self) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join(60)

    def call(self) -> None:
        number = 0
        while self._pause():
            number += 1
            server = random.choice(["demo", "sessions", "changing", "changing-sessions"])
            message = f"{server} {number}"
            request = mcp.modern(f"/mcp/{server}", "tools/call", "echo", arguments={"message": message})
            self.ask("modern call", request, lambda answer: _echoed(answer, message))

    def list(self) -> None:
        while self._pause():
            path = random.choice(["/mcp/demo", "/mcp/sessions", "/mcp"])
            tools = 104 if path == "/mcp" else 50
            request = mcp.modern(path, "tools/list")
            self.ask("list", request, lambda answer: _has_tools(answer, tools))

    def use_sessions(self) -> None:
        while self._pause():
            path = random.choice(["/mcp/demo", "/mcp/sessions", "/mcp/changing-sessions"])
            session = self._open(path)
            for number in range(_SESSION):
                if session is None or not self._pause():
                    break
                message = f"{path} {number}"
                request = mcp.legacy(path, session, "tools/call", name="echo", arguments={"message": message})
                self.ask("session call", request, lambda answer: _echoed(answer, message))
            if session is not None:
                end = Request("DELETE", path, {"MCP-Protocol-Version": mcp.LEGACY, "Mcp-Session-Id": session})
                self.ask("session end", end, lambda answer: None if answer.status in (200, 204) else _wrong(answer))

    def change(self, upstream: str) -> None:
        """Changes the list now and then, and sees when every node shows it."""
        while not self.stopped.wait(20):
            version = int(Request("POST", "/change").send(upstream).body)
            began = time.monotonic()
            self.changes.append((began, version))
            for server in ("changing", "changing-sessions"):
                self.converged.append({
                    "second": round(self.book.now(), 1),
                    "server": server,
                    "took": self._until_shown(server, version, began),
                })

    def _until_shown(self, server: str, version: int, began: float) -> float | None:
        waiting = set(self.nodes.hosts)
        while waiting and time.monotonic() < began + 120:
            for host in sorted(waiting):
                try:
                    answer = mcp.modern(f"/mcp/{server}", "tools/list").send(host)
                    if _has(answer, f"version_{version}"):
                        waiting.discard(host)
                except (OSError, http.client.HTTPException):
                    # It is down, and will ask the others when it is back.
                    waiting.discard(host)
            if self.stopped.wait(0.05):
                return None
        took = round(time.monotonic() - began, 2)
        if waiting:
            self.book.failed("change", f"{server}: version {version} is not shown by every node after {took} s")
        return took

    def ask(self, kind: str, request: Request, check) -> Answer | None:
        """Asks any node; `check` returns what is wrong with an answer, or nothing."""
        began = time.monotonic()
        hosts = random.sample(self.nodes.hosts, 2)
        for attempt, host in enumerate(hosts):
            sent = time.monotonic()
            try:
                answer = request.send(host)
            except ConnectionRefusedError:
                if attempt == 0:
                    continue
                self.book.failed(kind, "two nodes refused")
                return None
            except (OSError, http.client.HTTPException) as error:
                # A connection may be taken by the kernel of a process just killed.
                if self.nodes.was_killed(host, sent - 1):
                    self.book.cut_off(kind)
                else:
                    self.book.failed(kind, f"{type(error).__name__}: {error}")
                return None
            try:
                wrong = check(answer)
            except (ValueError, LookupError, StopIteration) as error:
                wrong = f"{type(error).__name__}: {error}: {answer.status} {answer.body[:200]!r}"
            if wrong:
                self.book.failed(kind, wrong)
                return None
            self.book.answered(kind, time.monotonic() - began, attempt > 0)
            return answer
        return None

    def _open(self, path: str) -> str | None:
        def has_session(answer: Answer) -> str | None:
            return None if answer.status == 200 and answer.headers["Mcp-Session-Id"] else _wrong(answer)

        answer = self.ask("session start", mcp.initialize(path), has_session)
        if answer is None:
            return None
        session = answer.headers["Mcp-Session-Id"]
        noted = self.ask(
            "session start",
            mcp.initialized(path, session),
            lambda answer: None if answer.status == 202 else _wrong(answer),
        )
        return session if noted is not None else None

    def _pause(self) -> bool:
        return not self.stopped.wait(random.uniform(0.5, 1.5) * _PAUSE)

    def _run(self, what) -> None:
        def loudly() -> None:
            try:
                what()
            except Exception as error:  # A client that dies is a finding, not silence.
                self.book.failed("client", f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=loudly, daemon=True)
        thread.start()
        self._threads.append(thread)


class Listener:
    """Holds a change stream, at another node when its own is killed."""

    def __init__(self, crowd: Crowd, server: str):
        self.crowd = crowd
        self.server = server
        # When it stood: from, to, and what it heard when.
        self.stood: list[tuple[float, float]] = []
        self.heard: list[float] = []

    def run(self) -> None:
        while not self.crowd.stopped.wait(0.2):
            host = random.choice(self.crowd.nodes.hosts)
            began = time.monotonic()
            try:
                why = self._listen(host)
            except ConnectionRefusedError:
                continue
            except (OSError, http.client.HTTPException, WrongAnswer) as error:
                why = f"{type(error).__name__}: {error}"
            if not self.crowd.stopped.is_set() and not self.crowd.nodes.was_killed(host, began - 1):
                self.crowd.book.failed("stream", f"{self.server}: {why}")

    def missed(self) -> list[float]:
        """Changes while the stream stood of which it did not hear."""
        missed = []
        for changed, _ in self.crowd.changes:
            stood = any(start < changed - 1 and changed + _HEARS_WITHIN < end for start, end in self.stood)
            if stood and not any(changed <= at <= changed + _HEARS_WITHIN for at in self.heard):
                missed.append(round(changed - self.crowd.book.began, 1))
        return missed

    def _listen(self, host: str) -> str:
        path = f"/mcp/{self.server}"
        connection = http.client.HTTPConnection(host, timeout=_SILENCE)
        try:
            if self.server.endswith("sessions"):
                session = mcp.open_session(host, path)
                headers = {
                    "Accept": "text/event-stream",
                    "MCP-Protocol-Version": mcp.LEGACY,
                    "Mcp-Session-Id": session,
                }
                connection.request("GET", path, None, headers)
            else:
                request = mcp.modern(path, "subscriptions/listen", notifications={"toolsListChanged": True})
                connection.request("POST", path, request.text(1), request.headers)
            response = connection.getresponse()
            if response.status != 200:
                return f"{response.status} {response.read()[:200]!r}"
            start = time.monotonic()
            try:
                while not self.crowd.stopped.is_set():
                    line = response.readline()
                    if not line:
                        return f"ended after {time.monotonic() - start:.1f} s"
                    if b"notifications/tools/list_changed" in line:
                        self.heard.append(time.monotonic())
                return "stopped"
            except socket.timeout:
                return f"silent for {_SILENCE} s"
            finally:
                self.stood.append((start, time.monotonic()))
        finally:
            connection.close()


def _echoed(answer: Answer, message: str) -> str | None:
    if answer.status == 200:
        content = answer.message().get("result", {}).get("content")
        if content == [{"type": "text", "text": message}]:
            return None
    return _wrong(answer)


def _has_tools(answer: Answer, count: int) -> str | None:
    if answer.status == 200:
        tools = answer.message().get("result", {}).get("tools", [])
        if len(tools) == count:
            return None
        return f"{len(tools)} tools instead of {count}: {json.dumps(answer.message().get('result', {}).get('_meta'))}"
    return _wrong(answer)


def _has(answer: Answer, tool: str) -> bool:
    return answer.status == 200 and f'"{tool}"'.encode() in answer.body


def _wrong(answer: Answer) -> str:
    return f"{answer.status} {answer.body[:300]!r}"
