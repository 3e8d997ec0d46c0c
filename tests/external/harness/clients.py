"""The third-party clients, each a program of its own that runs a plan and tells what happened."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .paths import HERE, INSPECTOR, NODE, PYTHON1, PYTHON2

JOB_S = 120.0


@dataclass(frozen=True)
class Client:
    """A client in one mode. `is_modern_capable`: it speaks 2026-07-28 to a server that does."""

    name: str
    program: tuple[str, ...]
    mode: str
    is_modern_capable: bool
    is_modern_only: bool = False

    def run(self, url: str, plan: list[dict[str, Any]]) -> dict[str, Any]:
        """Runs the plan against `url`. What goes wrong is in the report too, never raised."""
        job = json.dumps({"url": url, "mode": self.mode, "plan": plan})
        try:
            done = subprocess.run(self.program, input=job, capture_output=True, text=True, timeout=JOB_S)
        except subprocess.TimeoutExpired:
            return {"steps": [], "failure": {"message": f"the client did not end within {JOB_S} s"}}
        try:
            return json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            return {"steps": [], "failure": {"message": f"exit {done.returncode}\n{done.stdout}{done.stderr}"}}


def _node(script: str) -> tuple[str, ...]:
    return (str(NODE), str(HERE / "clients" / script))


TS1 = Client("ts1", _node("ts1.mjs"), "http", is_modern_capable=False)
TS1_SSE = Client("ts1-sse", _node("ts1.mjs"), "sse", is_modern_capable=False)
TS2 = Client("ts2", _node("ts2.mjs"), "default", is_modern_capable=False)
TS2_AUTO = Client("ts2-auto", _node("ts2.mjs"), "auto", is_modern_capable=True)
TS2_MODERN = Client("ts2-modern", _node("ts2.mjs"), "modern", is_modern_capable=True, is_modern_only=True)
PY1 = Client("py1", (str(PYTHON1), str(HERE / "clients" / "py1.py")), "http", is_modern_capable=False)
PY1_SSE = Client("py1-sse", (str(PYTHON1), str(HERE / "clients" / "py1.py")), "sse", is_modern_capable=False)
PY2 = Client("py2", (str(PYTHON2), str(HERE / "clients" / "py2.py")), "default", is_modern_capable=True)
PY2_LEGACY = Client("py2-legacy", (str(PYTHON2), str(HERE / "clients" / "py2.py")), "legacy", is_modern_capable=False)
PY2_MODERN = Client(
    "py2-modern",
    (str(PYTHON2), str(HERE / "clients" / "py2.py")),
    "modern",
    is_modern_capable=True,
    is_modern_only=True,
)

LEGACY = "2025-11-25"
MODERN = "2026-07-28"


@dataclass(frozen=True)
class Inspector:
    """The Inspector's command line in one mode; one process per request, so it runs no plans."""

    name: str
    era: str

    def ask(self, url: str, *arguments: str) -> dict[str, Any]:
        """One request; its result, or ``{"failure": ...}``."""
        transport = "sse" if "/sse" in url else "http"
        command: list[str | Path] = [NODE, INSPECTOR, "--cli", "--server-url", url, "--transport", transport]
        command += ["--protocol-era", self.era, "--format", "json", *arguments]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=JOB_S)
        except subprocess.TimeoutExpired:
            return {"failure": f"the client did not end within {JOB_S} s"}
        try:
            return json.loads(done.stdout)
        except ValueError:
            return {"failure": f"exit {done.returncode}\n{done.stdout}{done.stderr}"}

    def list_tools(self, url: str) -> dict[str, Any]:
        return self.ask(url, "--method", "tools/list")

    def call(self, url: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return self.ask(url, "--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))


INSPECTORS = [Inspector(f"inspector-{era}", era) for era in ("legacy", "auto", "modern")]
