"""What ends without being told to is back at once: the bridge, the server, the container.

Each time is measured from the deed to the first answer to a call that was sent right after it, and printed; limits for
them belong to the load tests, which have the machine for themselves.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

from engine import Engine
from fleet import Fleet, Node, of, ready, text_of, wait_until
from part import Checks, say

NOW = {"timezone": "Europe/Berlin"}


def show(engine: Engine, fleet: Fleet, checks: Checks) -> None:
    say("one replica: its bridge, its server, its container end without a word")
    deeds: dict[str, Callable[[str], None]] = {
        "the bridge is killed": lambda container: kill(engine, container, is_bridge=True),
        "the server is killed": lambda container: kill(engine, container, is_bridge=False),
        "the container is killed": lambda container: silent(engine.docker("kill", container)),
        "the container is removed": lambda container: silent(engine.docker("rm", "--force", container)),
    }
    first, *_, last = fleet.nodes
    for number, (deed, do) in enumerate(deeds.items()):
        name = f"alone-{number}"
        # A deployment for each: who fails twice within a minute is started again with a pause.
        deployed = first.run("deploy", "time", "--name", name)
        checks.require(f"{name} is deployed", deployed.code == 0, deployed)
        wait_until(lambda: last.get(f"/mcp/{name}/tools/list").status == 200, "another node serves it")
        text_of(last.call(name, "get_current_time", NOW))
        [container] = of(fleet, name, "running")
        begun = time.monotonic()
        do(container["Id"])
        done = time.monotonic()
        answer = called(last, name)
        took = time.monotonic() - begun
        checks.require(f"{deed}: a call is answered after {took:.2f} s ({done - begun:.2f} s take docker)", "Berlin" in answer)
        wait_until(lambda: ready(first, name) == 1, "it is ready again")
        print(f"      told as ready after {time.monotonic() - begun:.2f} s")
        checks.require(f"{name} is removed", first.run("rm", name).code == 0)


def called(node: Node, name: str) -> str:
    """The answer to a call, which waits for the server rather than fail; one that was on its way there when it ended is
    sent once more."""
    answer = node.call(name, "get_current_time", NOW)
    if answer.status == 502 and b"ended before the answer" in answer.body:
        print("      (a call was on its way when it ended)")
        answer = node.call(name, "get_current_time", NOW)
    return text_of(answer)


def kill(engine: Engine, container: str, *, is_bridge: bool) -> None:
    """Kills the first process of a container, or the server that is its child."""
    [state] = json.loads(engine.docker("inspect", container))
    bridge = state["State"]["Pid"]
    if is_bridge:
        os.kill(bridge, signal.SIGKILL)
        return
    with open(f"/proc/{bridge}/task/{bridge}/children") as children:
        started = children.read().split()
    for thread in os.listdir(f"/proc/{bridge}/task"):
        with open(f"/proc/{bridge}/task/{thread}/children") as children:
            started += children.read().split()
    if not started:
        raise AssertionError("the bridge has no child")
    for server in set(started):
        os.kill(int(server), signal.SIGKILL)


def silent(_: object) -> None:
    """What docker printed is of no interest."""
