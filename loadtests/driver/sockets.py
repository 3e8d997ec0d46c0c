"""Many connections from one process: held, listened on, or used all at once."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread

from .mcp import Request, WrongAnswer

# Connections that are being opened at a time.
_OPENING = 200
_PATIENCE = 60
_ID_LENGTH = 10


@dataclass
class Crowd:
    """Open connections, each of which has asked something and read the head of its answer."""

    _loop: asyncio.AbstractEventLoop
    _open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._open)

    def until_all_hear(self, word: bytes, seconds: float) -> list[float]:
        """Waits until a word came on each connection, and returns when it did (`time.monotonic`)."""

        async def hears(reader: asyncio.StreamReader) -> float | None:
            try:
                async with asyncio.timeout(seconds):
                    while line := await reader.readline():
                        if word in line:
                            return time.monotonic()
            except TimeoutError:
                pass
            return None

        async def all_hear() -> list[float | None]:
            return await asyncio.gather(*[hears(reader) for reader, _ in self._open])

        heard = asyncio.run_coroutine_threadsafe(all_hear(), self._loop).result()
        return sorted(at for at in heard if at is not None)


@contextmanager
def held(host: str, number: int, request: Request) -> Iterator[Crowd]:
    """So many connections on which a request was answered with 200, or has begun to be."""
    with _loop() as loop:
        crowd = Crowd(loop)

        async def fill() -> None:
            turn = asyncio.Semaphore(_OPENING)

            async def one(at: int) -> None:
                async with turn, asyncio.timeout(_PATIENCE):
                    reader, writer = await _open(host)
                    crowd._open.append((reader, writer))
                    writer.write(_wire(request, host, at))
                    await _head(reader)

            await asyncio.gather(*[one(at) for at in range(number)])

        async def close() -> None:
            for _, writer in crowd._open:
                writer.transport.abort()

        try:
            asyncio.run_coroutine_threadsafe(fill(), loop).result()
            yield crowd
        finally:
            asyncio.run_coroutine_threadsafe(close(), loop).result()


@dataclass(frozen=True)
class Burst:
    """What came of requests that were sent all at once."""

    latencies_ms: list[float]
    bodies: dict[bytes, int]


def burst(hosts: Sequence[str], number: int, request: Request) -> Burst:
    """Opens so many connections, spread over hosts, and only then sends one request on each."""

    async def run() -> Burst:
        turn = asyncio.Semaphore(_OPENING)

        async def opened(host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            async with turn:
                return await _open(host)

        chosen = [hosts[at % len(hosts)] for at in range(number)]
        connections = await asyncio.gather(*map(opened, chosen))
        wires = [_wire(request, host, at) for at, host in enumerate(chosen)]
        began = time.monotonic()
        for (_, writer), wire in zip(connections, wires):
            writer.write(wire)
        bodies: dict[bytes, int] = {}
        latencies = []

        async def answered(reader: asyncio.StreamReader) -> None:
            async with asyncio.timeout(_PATIENCE):
                head = await _head(reader)
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
            latencies.append((time.monotonic() - began) * 1000)
            bodies[body] = bodies.get(body, 0) + 1

        await asyncio.gather(*[answered(reader) for reader, _ in connections])
        for _, writer in connections:
            writer.transport.abort()
        return Burst(sorted(latencies), bodies)

    return asyncio.run(run())


async def _open(host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name, _, port = host.rpartition(":")
    return await asyncio.open_connection(name, int(port), limit=1 << 20)


async def _head(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise WrongAnswer(f"not answered: {head[:300]!r}")
    return head.lower()


def _wire(request: Request, host: str, at: int) -> bytes:
    return str(10 ** (_ID_LENGTH - 1) + at).join(request.wire(host, _ID_LENGTH)).encode()


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop beside us: connections stay alive while we do something else."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
