"""Clients at a fixed, moderate rate while something happens to the nodes.

Each request goes to any node; a refused connection is tried once more at another, as a
load balancer or a client would. A latency counts from when the request was due.
"""

import http.client
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import answers, mcp
from .mcp import Answer, Request, WrongAnswer
from .nodes import Nodes

_CLIENTS = 24


@dataclass(frozen=True)
class Kind:
    """What is asked, and what a right answer is."""

    name: str
    request: Request
    check: Callable[[Answer], None]


@dataclass(frozen=True)
class Asked:
    """One request and what became of it."""

    kind: str
    due: float
    latency_ms: float
    # What is wrong with the answer, if anything is.
    wrong: str | None
    was_retried: bool
    # It was in flight at a node that was killed: the one loss that nobody can prevent.
    was_cut_off: bool


@dataclass
class Steady:
    """Use with `with`: it asks until the block ends; then `asked` is complete."""

    nodes: Nodes
    kinds: list[Kind]
    rate: float
    asked: list[Asked] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _due: "queue.Queue[float]" = field(default_factory=queue.Queue)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Steady":
        for work in [self._schedule, *[self._ask_when_due] * _CLIENTS]:
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(40)

    def between(self, start: float, end: float) -> list[Asked]:
        """What was due in a span of `time.monotonic`."""
        return [asked for asked in self.asked if start <= asked.due < end]

    def _schedule(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            self._due.put(due)
            due += 1 / self.rate

    def _ask_when_due(self) -> None:
        while not self._stopped.is_set():
            try:
                due = self._due.get(timeout=0.1)
            except queue.Empty:
                continue
            self.asked.append(self._ask(random.choice(self.kinds), due))

    def _ask(self, kind: Kind, due: float) -> Asked:
        hosts = random.sample(self.nodes.hosts, min(2, len(self.nodes.hosts)))

        def became(wrong: str | None, was_retried: bool, was_cut_off: bool = False) -> Asked:
            return Asked(kind.name, due, (time.monotonic() - due) * 1000, wrong, was_retried, was_cut_off)

        for attempt, host in enumerate(hosts):
            sent = time.monotonic()
            try:
                kind.check(kind.request.send(host))
                return became(None, attempt > 0)
            except ConnectionRefusedError:
                continue
            except (OSError, http.client.HTTPException) as error:
                # A connection may be taken by the kernel of a process just killed.
                if self.nodes.was_killed(host, sent - 1):
                    return became(None, attempt > 0, was_cut_off=True)
                return became(f"{type(error).__name__}: {error}", attempt > 0)
            except (WrongAnswer, ValueError, LookupError, StopIteration) as error:
                return became(str(error)[:300], attempt > 0)
        return became("refused", True)


def kinds(nodes: Nodes, upstream: str, sessions: int = 8) -> list[Kind]:
    """Modern calls, calls in sessions (opened at one node, used at any), cached lists."""
    arguments = {"message": answers.MESSAGE}
    call = mcp.modern("/mcp/demo", "tools/call", "echo", arguments=arguments)
    tools = answers.plain_list(upstream, "demo")

    def echoes(answer: Answer) -> None:
        answers.says(answer, answers.MESSAGE)

    def lists(answer: Answer) -> None:
        answers.has_tools(answer, tools)

    path = "/mcp/sessions"
    opened = [mcp.open_session(nodes.hosts[number % len(nodes.hosts)], path) for number in range(sessions)]
    in_sessions = [mcp.legacy(path, session, "tools/call", name="echo", arguments=arguments) for session in opened]
    return [
        *[Kind("call", call, echoes)] * sessions,
        *[Kind("call in a session", request, echoes) for request in in_sessions],
        *[Kind("list", mcp.modern("/mcp/demo", "tools/list"), lists)] * sessions,
    ]
