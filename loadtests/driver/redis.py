"""What a Redis says of itself: the commands it has run, its keys and memory."""

import socket

from .processes import Processes


def start(processes: Processes, port: int) -> int:
    """Starts a Redis that keeps nothing on disk, and returns its port."""
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    processes.start("redis", command)
    processes.wait_for_port("redis", port)
    return port


def commands(port: int) -> dict[str, int]:
    """How often each command ran so far, as `INFO commandstats` tells it."""
    counts = {}
    for line in _info(port, "commandstats").splitlines():
        name, colon, fields = line.partition(":")
        if colon and name.startswith("cmdstat_"):
            counts[name.removeprefix("cmdstat_")] = int(fields.split(",")[0].removeprefix("calls="))
    # Ours.
    for name in ("info", "keys"):
        counts.pop(name, None)
    return counts


def between(earlier: dict[str, int], later: dict[str, int]) -> dict[str, int]:
    """What ran in between."""
    grown = {name: count - earlier.get(name, 0) for name, count in later.items()}
    return {name: count for name, count in sorted(grown.items()) if count}


def size(port: int) -> dict[str, int]:
    """Keys and bytes."""
    told = dict(line.split(":", 1) for line in _info(port, "all").splitlines() if ":" in line)
    keys = dict(part.split("=") for part in told.get("db0", "keys=0").split(","))
    return {
        "keys": int(keys["keys"]),
        "bytes": int(told["used_memory"]),
        "clients": int(told["connected_clients"]) - 1,
    }


def leases(port: int) -> int:
    """How many duties somebody holds."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"KEYS *:lease:{*}\r\n")
        reader = connection.makefile("rb")
        return int(reader.readline().removeprefix(b"*"))


def _info(port: int, section: str) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(f"INFO {section}\r\n".encode())
        reader = connection.makefile("rb")
        length = int(reader.readline().removeprefix(b"$"))
        return reader.read(length).decode()
