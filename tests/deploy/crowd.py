"""Many at once: large messages from four nodes, a node that stops reading, agents that vanish in mid-call.

Not for what a single bridge does with all that, which `tests/it/bridge` knows.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from fleet import Fleet, Node, ready, text_of, wait_until
from hostile import echoes
from part import Checks, say

AGENT = Path(__file__).with_name("agent.py")
LARGE = 300_000
HUGE = 15_000_000
LARGE_CALLS = 6
HUGE_CALLS = 2
CALL_S = 120.0

AGENTS = 10
SERVERS = 9
ROUNDS = 3
# A client's session that nobody uses ends after this, here (`run`).
SESSION_IDLE = "3s"


def lines(fleet: Fleet, checks: Checks) -> None:
    say(f"lines of {LARGE // 1000} KB and {HUGE // 1_000_000} MB from {len(fleet.nodes)} nodes at once")
    first = fleet.nodes[0]
    deployed = first.run("deploy", "odd", "--name", "echo")
    checks.require("one server for all is deployed", deployed.code == 0, deployed)
    for node in fleet.nodes:
        wait_until(lambda: echoes(node, "echo"), f"{node.name} calls it")
    large(fleet, checks)
    deaf(fleet, checks)
    checks.require("it is removed", first.run("rm", "echo").code == 0)


def large(fleet: Fleet, checks: Checks) -> None:
    begun = time.monotonic()
    done: Counter[str] = Counter()
    when_first_was_done: list[Counter[str]] = []
    small: list[float] = []
    wrong: list[str] = []
    stopping = threading.Event()

    def carry(node: Node, number: int) -> None:
        for size, calls in ((LARGE, LARGE_CALLS), (HUGE, HUGE_CALLS)):
            for turn in range(calls):
                if not is_carried(node, f"{node.name} {number} {turn} ", size):
                    wrong.append(f"{node.name}: call {turn} of {size} bytes")
                done[node.name] += size
        if not when_first_was_done:
            when_first_was_done.append(Counter(done))

    def ask(node: Node) -> None:
        while not stopping.wait(0.05):
            at = time.monotonic()
            if not echoes(node, "echo"):
                wrong.append(f"{node.name}: a small call between")
            small.append(time.monotonic() - at)

    carrying = [threading.Thread(target=carry, args=[node, 0]) for node in fleet.nodes]
    asking = [threading.Thread(target=ask, args=[node]) for node in fleet.nodes]
    for thread in carrying + asking:
        thread.start()
    for thread in carrying:
        thread.join()
    stopping.set()
    for thread in asking:
        thread.join()
    checks.require("every byte came back as it was sent, to whom it was sent", not wrong, wrong[:5])
    shares = when_first_was_done[0]
    told = ", ".join(f"{node.name} {shares[node.name] / 1e6:.0f} MB" for node in fleet.nodes)
    is_fair = all(shares[node.name] >= LARGE * LARGE_CALLS for node in fleet.nodes)
    checks.require(f"when the first node was done, the others were not far behind: {told}", is_fair, shares)
    total = sum(done.values()) / 1e6
    small.sort()
    print(
        f"      {total:.0f} MB each way in {time.monotonic() - begun:.1f} s; {len(small)} small calls between them: "
        f"median {small[len(small) // 2] * 1000:.0f} ms, slowest {small[-1] * 1000:.0f} ms"
    )


def deaf(fleet: Fleet, checks: Checks) -> None:
    """A node is stopped while it is sent much: nobody else waits for it."""
    *others, victim = fleet.nodes
    stopping = threading.Event()
    outcomes: list[bool] = []

    def carry() -> None:
        while not stopping.is_set():
            try:
                outcomes.append(is_carried(victim, "deaf ", HUGE))
            except OSError:
                # Its deadline passed while it stood still.
                outcomes.append(True)

    threads = [threading.Thread(target=carry) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: bool(outcomes), "much is under way")
    victim.signal(signal.SIGSTOP)
    try:
        for node in others:
            took = []
            for turn in range(5):
                begun = time.monotonic()
                checks_out = is_carried(node, f"{node.name} {turn} ", LARGE) and echoes(node, "echo")
                took.append(time.monotonic() - begun)
                if not checks_out:
                    raise AssertionError(f"{node.name} got a wrong answer while {victim.name} stood still")
            checks.require(f"{node.name} goes on while {victim.name} does not read (slowest {max(took):.2f} s)", True)
    finally:
        victim.signal(signal.SIGCONT)
        stopping.set()
        for thread in threads:
            thread.join()
    wait_until(lambda: echoes(victim, "echo"), f"{victim.name} calls it again")
    checks.require(f"{victim.name} goes on where it was", all(outcomes), outcomes)


def is_carried(node: Node, seed: str, size: int) -> bool:
    """Whether a text of that size came back; another one's bytes in it would be seen."""
    text = (seed * (size // len(seed) + 1))[:size]
    answer = node.call("echo", "echo", {"text": text}, timeout=CALL_S)
    return answer.status == 200 and text_of(answer) == text


def agents(fleet: Fleet, checks: Checks) -> None:
    say(f"{AGENTS} agents at {SERVERS} servers each, killed at random")
    first = fleet.nodes[0]
    names = [f"crowd-{number}" for number in range(SERVERS)]
    for number, name in enumerate(names):
        # Every third has a process for each session.
        template = "odd-each" if number % 3 == 2 else "odd"
        taken = first.post("/api/deployments", {"template": template, "name": name})
        checks.require(f"{name} ({template}) is taken", taken.status == 202, taken)
    wait_until(lambda: all(ready(first, name) == 1 for name in names), "all are ready")
    for node in fleet.nodes:
        wait_until(lambda: all(echoes(node, name) for name in names), f"{node.name} calls all")
    wait_until(lambda: not sessions(fleet), "sessions of before are over")
    before = Baseline(fleet, names)
    calls = 0
    for turn in range(ROUNDS):
        calls += crowd(fleet, names, turn)
    checks.require(f"{calls} calls were answered to {ROUNDS * AGENTS} agents, each killed at some point", calls > 0)
    after = None

    def is_as_before() -> bool:
        nonlocal after
        after = Baseline(fleet, names)
        return after.is_within(before)

    try:
        took = wait_until(is_as_before, "everything is as before", limit_s=120)
    except AssertionError as error:
        raise AssertionError(f"{error}\nbefore: {before}\nafter: {after}") from None
    checks.require(f"{took:.0f} s later containers, processes, sessions and sockets are what they were: {after}", True)
    for name in names:
        checks.require(f"{name} is given up", first.run("rm", name, "--no-wait").code == 0)
    wait_until(lambda: not [it for it in fleet.containers() if "crowd-" in it["Name"]], "all are gone")


def crowd(fleet: Fleet, names: list[str], turn: int) -> int:
    """Runs agents until the last is killed; how many calls they said were answered."""
    rng = random.Random(turn)
    running = []
    for number in range(AGENTS):
        node = fleet.nodes[number % len(fleet.nodes)]
        command = [sys.executable, str(AGENT), node.url, str(number), *names]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    answered = 0
    for agent in rng.sample(running, len(running)):
        assert agent.stdout
        # Each is at work: it says so after every round of calls.
        line = agent.stdout.readline()
        if not line:
            raise AssertionError(f"an agent ended by itself: {agent.wait()}")
        time.sleep(rng.uniform(0, 0.3))
        os.kill(agent.pid, signal.SIGKILL)
        said = [line, *agent.stdout]
        agent.wait()
        answered += sum(int(line) for line in said if line.endswith("\n"))
    return answered


class Baseline:
    """What there is of everything that agents could leave behind."""

    def __init__(self, fleet: Fleet, names: list[str]) -> None:
        containers = [it for it in fleet.containers("running") if it["Name"].split("-")[3:4] == ["crowd"]]
        self.containers = len(containers)
        self.processes = sum(processes(fleet, it["Id"]) for it in containers)
        self.sessions = sessions(fleet)
        self.sockets = sum(sockets(node.pid) for node in fleet.nodes)
        self.restarts = sum(
            it.get("restarts", 0) for name in names for it in (fleet.nodes[0].deployment(name) or {}).get("containers", [])
        )

    def is_within(self, before: Baseline) -> bool:
        # Connections to servers are kept for the next call, as many as a node may keep.
        return (
            self.containers == before.containers == SERVERS
            and self.processes <= before.processes
            and self.sessions <= before.sessions
            and self.sockets <= before.sockets + SERVERS * 4
            and self.restarts == before.restarts
        )

    def __str__(self) -> str:
        return (
            f"{self.containers} containers, {self.processes} processes in them, {self.sessions} sessions, "
            f"{self.sockets} sockets, {self.restarts} restarts"
        )


def processes(fleet: Fleet, container: str) -> int:
    return len(fleet.engine.docker("top", container, "-o", "pid").splitlines()) - 1


def sessions(fleet: Fleet) -> int:
    """Sessions of clients that the nodes know of."""
    return sum(in_use(node, "sessions") for node in fleet.nodes)


def in_use(node: Node, what: str) -> int:
    lines = node.get("/metrics").body.decode().splitlines()
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith("mcp_fleet_in_use") and f'"{what}"' in line)


def sockets(pid: int) -> int:
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except OSError:
            # Closed in between.
            pass
    return found


