"""Counts the commands a Redis has run."""

import socket


def commands(port: int) -> dict[str, int]:
    """How often each command ran so far, as `INFO commandstats` tells it."""
    counts = {}
    for line in _info(port).splitlines():
        name, colon, fields = line.partition(":")
        if colon and name.startswith("cmdstat_"):
            counts[name.removeprefix("cmdstat_")] = int(fields.split(",")[0].removeprefix("calls="))
    # Ours.
    counts.pop("info", None)
    return counts


def between(earlier: dict[str, int], later: dict[str, int]) -> dict[str, int]:
    """What ran in between."""
    grown = {name: count - earlier.get(name, 0) for name, count in later.items()}
    return {name: count for name, count in sorted(grown.items()) if count}


def _info(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"INFO commandstats\r\n")
        reader = connection.makefile("rb")
        length = int(reader.readline().removeprefix(b"$"))
        return reader.read(length).decode()
