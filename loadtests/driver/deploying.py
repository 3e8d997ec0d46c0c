"""Twenty deployments at once through three nodes whose engine is slow, and what others meanwhile wait for.

A program of its own (`scenarios/deployments.py` runs it): the engine is in a network of its own, which this process
enters and cannot leave. It is told what it needs as JSON, and the last line it prints is what it saw.
"""

import http.client
import json
import multiprocessing
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import mcp, redis
from .mcp import Request
from .nodes import Nodes
from .processes import Processes, free_port

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/docker"))

from engine import CannotStart, Engine, require_root  # noqa: E402
from images import Image  # noqa: E402

NODES = 3
DEPLOYMENTS = 20
LIMIT_S = 300.0
# Requests per second of each kind at each node.
RATE = 20.0
_JSON = {"Content-Type": "application/json"}


def main() -> None:
    told = json.loads(sys.argv[1])
    missing = [program for program in ("dockerd", "docker", "ip") if shutil.which(program) is None]
    if missing:
        say({"left_out": f"not installed: {', '.join(missing)} (Debian: apt-get install docker.io iproute2)"})
        return
    cache = Path(told["cache"])
    cache.mkdir(parents=True, exist_ok=True)
    try:
        require_root("loadtests")
        with Engine("loadtests", cache) as engine:
            say(play(engine, cache, told))
    except CannotStart as error:
        say({"left_out": str(error).splitlines()[0]})


def play(engine: Engine, cache: Path, told: dict) -> dict:
    binaries, scratch = told["binaries"], Path(told["scratch"])
    server = Path(binaries["mcp-fleet"])
    Image("mcp-fleet:local", lambda root, _: root.program(server, at="/mcp-fleet"), ['ENTRYPOINT ["/mcp-fleet"]'], [server]).make(
        engine, cache
    )
    with Processes(scratch) as processes:
        processes.start("upstream", [binaries["upstream"], "127.0.0.1:0"])
        upstream = processes.address_of("upstream")
        slow = scratch / "slow.sock"
        real = engine.env["DOCKER_HOST"].removeprefix("unix://")
        processes.start(
            "engine", [sys.executable, str(Path(__file__).with_name("slow_socket.py")), str(slow), real, str(told["delay"])]
        )
        processes.wait_until("engine", slow.exists)
        port = redis.start(processes, free_port())
        settings = ("[engine.docker]", f'host = "unix://{slow}"')
        servers = {"demo": f"http://{upstream}/mcp/demo"}
        nodes = Nodes(processes, binaries["mcp-fleet"], scratch, port, servers, settings=settings, started_by=())
        for _ in range(NODES):
            nodes.add()
        try:
            return measure(engine, nodes.hosts, told["seconds"])
        finally:
            if left := engine.docker("ps", "--all", "--quiet", "--filter", "label=dev.mcp-fleet.server").split():
                engine.docker("rm", "--force", *left)


def measure(engine: Engine, hosts: list[str], seconds: float) -> dict:
    until(lambda: ask(hosts[0], "/api/cluster")["nodes"][0], "the nodes know each other", 20)
    with Asking(hosts) as idle:
        time.sleep(seconds)
    names = [f"load-{number:02}" for number in range(DEPLOYMENTS)]
    with Asking(hosts) as busy:
        begun = time.monotonic()
        with ThreadPoolExecutor(DEPLOYMENTS) as pool:
            taken = list(pool.map(lambda at: deploy(hosts[at[0] % NODES], at[1]), enumerate(names)))
        took = until(lambda: ready(hosts[0]) == DEPLOYMENTS, "all are ready", LIMIT_S)
        took = None if took is None else time.monotonic() - begun
    answered = sum(is_answered(host, name) for name in names for host in hosts)
    found = engine.docker("ps", "--all", "--format", "{{.Label \"dev.mcp-fleet.server\"}}").split()
    return {
        "taken": sum(status == 202 for status in taken),
        "took": took,
        "answered": answered,
        "asked": len(names) * len(hosts),
        "containers": len(found),
        "servers": len(set(found)),
        "idle": idle.seen,
        "busy": busy.seen,
    }


class Asking:
    """Asks every node for its health, and for calls of a server that has nothing to do with all this, at a fixed rate.

    In a process of its own, so that nothing here delays it. A latency counts from when the request was due.
    """

    def __init__(self, hosts: list[str]) -> None:
        self.seen: dict[str, list[float]] = {}
        self.wrong = 0
        context = multiprocessing.get_context("fork")
        self._stop = context.Event()
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_ask_all, args=(hosts, self._stop, theirs), daemon=True)

    def __enter__(self) -> "Asking":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.seen = self._ours.recv()
        self._process.join()


def _ask_all(hosts: list[str], stop, results) -> None:
    call = mcp.modern("/mcp/demo", "tools/call", "echo", arguments={"text": "x"})
    seen: dict[str, list[float]] = {"health": [], "calls": [], "wrong": []}
    threads = []
    for place, host in enumerate(hosts):
        for kind, request in (("health", Request("GET", "/healthz")), ("calls", call)):
            first = time.monotonic() + place / (RATE * len(hosts))
            threads.append(threading.Thread(target=_ask, args=(host, kind, request, first, stop, seen)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.send(seen)


def _ask(host: str, kind: str, request: Request, due: float, stop, seen: dict[str, list[float]]) -> None:
    connection = http.client.HTTPConnection(host, timeout=30)
    while not stop.is_set():
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            body = None if request.body is None else request.text(1)
            connection.request(request.method, request.path, body, request.headers)
            answer = connection.getresponse()
            said = answer.read()
            is_right = answer.status == 200 and b'"error"' not in said
        except OSError:
            connection.close()
            is_right = False
        latency = (time.monotonic() - due) * 1000
        seen[kind if is_right else "wrong"].append(latency)
        due += 1 / RATE


def deploy(host: str, name: str) -> int:
    body = json.dumps({"template": "demo", "name": name})
    return Request("POST", "/api/deployments", _JSON, (body,)).send(host).status


def ready(host: str) -> int:
    return sum(one["ready"] == 1 for one in ask(host, "/api/deployments"))


def is_answered(host: str, name: str) -> bool:
    body = json.dumps({"name": "say_hello", "arguments": {"name": name}})
    answer = Request("POST", f"/mcp/{name}/tools/call", _JSON, (body,)).send(host)
    return answer.status == 200 and name in answer.body.decode()


def ask(host: str, path: str) -> Any:
    return json.loads(Request("GET", path).send(host).body)


def until(is_so, what: str, limit_s: float) -> float | None:
    """How long it took; nothing when it did not come to that."""
    begun = time.monotonic()
    while time.monotonic() - begun < limit_s:
        if is_so():
            return time.monotonic() - begun
        time.sleep(0.2)
    print(f"not within {limit_s:.0f} s: {what}", file=sys.stderr)
    return None


def say(what: dict) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
