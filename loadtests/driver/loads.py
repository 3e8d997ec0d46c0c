"""The loads that scenarios are made of."""

from collections.abc import Callable
from pathlib import Path

from .generators import Seen, h2load, oha, wrk
from .mcp import Request
from .measure import Bench
from .scenario import Load, Pace
from .subjects import Subject

CONNECTIONS = 64


def closed(connections: int = CONNECTIONS) -> Load:
    """So many connections of HTTP/1.1 that never pause."""

    def load(subject: Subject, requests: list[Request], pace: Pace, scratch: Path) -> Seen:
        return wrk.run([subject.host], requests, connections, pace.seconds, scratch)

    return load


def on(
    hosts: list[str], requests: list[Request], bench: Bench, connections: int = CONNECTIONS
) -> Callable[[float], Seen]:
    """The same for nodes of a situation, for as many seconds as it is told."""
    return lambda seconds: wrk.run(hosts, requests, connections, seconds, bench.scratch)


def closed_http2(at_once: int = CONNECTIONS) -> Load:
    """So many requests at once over HTTP/2, several on each connection."""
    streams = {1: 1, 64: 4, 256: 8, 1000: 10}[at_once]

    def load(subject: Subject, requests: list[Request], pace: Pace, scratch: Path) -> Seen:
        host = subject.http2_host or subject.host
        return h2load.run(host, requests[0], at_once // streams, streams, pace.seconds, scratch)

    return load


def at_rate(rate: float, connections: int = CONNECTIONS) -> Load:
    """So many requests per second, whatever the answers take."""

    def load(subject: Subject, requests: list[Request], pace: Pace, scratch: Path) -> Seen:
        return oha.run(subject.host, requests[0], connections, rate, pace.seconds, scratch)

    return load
