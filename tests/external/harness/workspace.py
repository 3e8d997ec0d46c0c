"""A temporary directory with the logs of the programs a script has started, all ended with it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from .programs import Program


class Workspace:
    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="mcp-fleet-external-")
        self.directory = Path(self._temporary.name)
        self._programs: dict[str, Program] = {}
        self._gateways: list[Program] = []

    def start(
        self,
        name: str,
        arguments: Sequence[object],
        env: Mapping[str, str] | None = None,
        is_gateway: bool = False,
    ) -> Program:
        """Starts a program that ends with the workspace. A name may be used again after `stop`."""
        if name in self._programs:
            raise ValueError(f"{name} is already running")
        program = Program(arguments, self.directory / f"{name}.log", env)
        self._programs[name] = program
        if is_gateway:
            self._gateways = [*self._gateways, program]
        return program

    def stop(self, name: str) -> None:
        if program := self._programs.pop(name, None):
            program.stop()

    def stop_all(self) -> None:
        for name in reversed(list(self._programs)):
            self.stop(name)

    def gateway_tail(self) -> str:
        """The end of the last gateway's log; empty when there was none."""
        return self._gateways[-1].tail() if self._gateways else ""

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()
        self._temporary.cleanup()
