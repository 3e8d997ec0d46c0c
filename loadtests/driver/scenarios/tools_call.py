"""tools/call: eras, sizes, kinds of answers, connections, HTTP/1.1 and HTTP/2."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product

from .. import answers, loads, mcp
from ..answers import KIB_100, MESSAGE
from ..mcp import Answer, Request
from ..scenario import PAIR, Comparison, Figure, Variant
from ..subjects import Kind, Subject

# As many clients, each with a session of its own.
_SESSIONS = 64


@dataclass(frozen=True)
class Era:
    """Who speaks what; a proxy can only ask a server that speaks as the client does."""

    about: str
    is_modern_client: bool
    server: str
    server_of_proxies: str


_ERAS = {
    "modern": Era("2026-07-28 on both sides", True, "demo", "demo"),
    "session": Era("2025-11-25 on both sides, 64 sessions", False, "sessions", "sessions"),
    "sessionless": Era("2025-11-25 on both sides, no sessions at the server", False, "sessionless", "sessionless"),
    "modern to legacy": Era("a client of 2026-07-28, a server of 2025-11-25", True, "sessions", "demo"),
    "legacy to modern": Era("64 sessions of 2025-11-25, a server of 2026-07-28", False, "demo", "sessions"),
}


@dataclass(frozen=True)
class Shape:
    """One cell of the matrix."""

    era: str = "modern"
    bytes: int | None = None
    is_stream: bool = False
    connections: int = loads.CONNECTIONS
    is_http2: bool = False

    def name(self) -> str:
        """The era, and what is not as usual."""
        words = [self.era]
        words += ["100 KB"] if self.bytes else []
        words += ["event stream"] if self.is_stream else []
        words += ["HTTP/2"] if self.is_http2 else []
        words += [f"{self.connections:,}"] if self.connections != loads.CONNECTIONS else []
        return ", ".join(words)

    def about(self) -> str:
        size = "100 KB" if self.bytes else "1 KB"
        kind = "an event stream with progress" if self.is_stream else "JSON"
        connections = "1 connection" if self.connections == 1 else f"{self.connections:,} connections"
        at_once = f"{self.connections:,} at once over HTTP/2" if self.is_http2 else connections
        return f"{_ERAS[self.era].about}; {size} as {kind}; {at_once}"

    def variant(self, figure: Figure, subjects: tuple[str, ...] | None) -> Variant:
        return Variant(
            self.name(),
            self.about(),
            self._opened,
            self._check,
            (loads.closed_http2 if self.is_http2 else loads.closed)(self.connections),
            figure,
            subjects,
            needs="h2load" if self.is_http2 else "wrk",
        )

    @contextmanager
    def _opened(self, subject: Subject) -> Iterator[list[Request]]:
        era = _ERAS[self.era]
        path = subject.path(era.server_of_proxies if subject.kind is Kind.FLOOR else era.server)
        meta = mcp.PROGRESS if self.is_stream else None
        arguments: dict = {"message": MESSAGE}
        arguments |= {"bytes": self.bytes} if self.bytes else {}
        arguments |= {"stream": True} if self.is_stream else {}
        if era.is_modern_client:
            yield [mcp.modern(path, "tools/call", subject.echo, meta, arguments=arguments)]
            return
        sessions = [mcp.shake_hands(subject.host, path) for _ in range(min(_SESSIONS, self.connections))]
        try:
            yield [
                mcp.legacy(path, session, "tools/call", meta, name=subject.echo, arguments=arguments)
                for session in sessions
            ]
        finally:
            for session in filter(None, sessions):
                mcp.end_session(subject.host, path, session)

    def _check(self, answer: Answer, _: str) -> None:
        answers.says(answer, "x" * self.bytes if self.bytes else MESSAGE)
        if self.is_stream:
            answers.streams(answer)


def _usual() -> list[Variant]:
    base = Shape()
    with_peers = [
        base.variant(Figure(cpu_at_most=1.25, peer_throughput_at_least=2.5), None),
        replace(base, era="session").variant(Figure(cpu_at_most=1.25, peer_throughput_at_least=2.5), None),
        replace(base, connections=256).variant(Figure(peer_throughput_at_least=2.5), None),
    ]
    others = [
        replace(base, era="sessionless"),
        replace(base, era="modern to legacy"),
        replace(base, era="legacy to modern"),
        replace(base, is_stream=True),
        replace(base, bytes=KIB_100),
        replace(base, connections=1),
        replace(base, connections=1000),
        replace(base, is_http2=True),
    ]
    return with_peers + [shape.variant(Figure(), PAIR) for shape in others]


def _others(usual: list[Variant]) -> list[Variant]:
    """The rest of the matrix."""
    named = {variant.name for variant in usual}
    cells = product(_ERAS, (None, KIB_100), (False, True), (1, 64, 256, 1000), (False, True))
    shapes = [Shape(*cell) for cell in cells]
    return [
        shape.variant(Figure(), PAIR)
        for shape in shapes
        # h2load sends one request again and again: ids and sessions would be the same.
        if shape.name() not in named and not (shape.is_http2 and not _ERAS[shape.era].is_modern_client)
    ]


_USUAL = _usual()

SCENARIO = Comparison(
    "tools-call",
    "a call to one server",
    _USUAL,
    _others(_USUAL),
    servers=("demo", "sessions", "sessionless"),
)
