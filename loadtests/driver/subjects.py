"""What is asked: the gateway, and what it is compared with."""

from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from . import machine


class Kind(Enum):
    """What a subject is to the comparison."""

    GATEWAY = "gateway"
    # Moves bytes and knows nothing of MCP.
    FLOOR = "floor"
    # Another gateway, which somebody else has started.
    PEER = "peer"


@dataclass(frozen=True)
class Subject:
    """Something that is asked: the processes to measure and where it listens."""

    name: str
    host: str
    pids: tuple[int, ...]
    kind: Kind
    # Its Redis, if it has one.
    redis_port: int | None = None
    # Where HTTP/2 is spoken, if it is.
    http2_host: str | None = None
    # The path of a server.
    route: str = "/mcp/{server}"
    # How the tool `echo` is called there.
    echo: str = "echo"

    def path(self, server: str) -> str:
        return self.route.format(server=server)

    @property
    def is_gateway(self) -> bool:
        return self.kind is Kind.GATEWAY


def peer(text: str) -> Subject:
    """A peer from `NAME=URL[#TOOL]`: `{server}` in the URL stands for the server, TOOL for the tool `echo`."""
    name, equals, url = text.partition("=")
    parts = urlsplit(url)
    if not (name and equals and parts.hostname and parts.scheme == "http"):
        raise ValueError(f"not NAME=http://HOST:PORT/PATH: {text}")
    port = parts.port or 80
    is_here = parts.hostname in ("127.0.0.1", "localhost", "::1")
    return Subject(
        name,
        f"{parts.hostname}:{port}",
        machine.listeners(port) if is_here else (),
        Kind.PEER,
        route=parts.path or "/",
        echo=parts.fragment or "echo",
    )
