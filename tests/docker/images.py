"""Images made of this machine's files: no registry is needed.

Not for what belongs into one: the parts know.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine import Engine, skipped_by
from rootfs import RootFs

REPOSITORY = Path(__file__).resolve().parent.parent.parent
LABEL = "mcp-fleet.stand-in"
PATH = "ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """An image by the name it gets, and how it is filled."""

    name: str
    fill: Callable[[RootFs, Path], None]
    settings: list[str] = field(default_factory=list)
    depends_on: list[Path] = field(default_factory=list)
    asks: tuple[str, ...] = ()
    """A command whose output changes when the image could, beside what Debian packages say."""

    def digest(self) -> str:
        """Changes when the image could."""
        terms = [self.name, repr(self.settings), output("dpkg-query", "--show"), output(*self.asks) if self.asks else ""]
        digest = hashlib.sha256("\n".join(terms).encode())
        for path in [Path(__file__), Path(__file__).with_name("rootfs.py"), *self.depends_on]:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def make(self, engine: Engine, cache: Path) -> None:
        """Imports the image, unless the engine has it already."""
        digest = self.digest()
        label = f'{{{{index .Config.Labels "{LABEL}"}}}}'
        if engine.docker("image", "inspect", "-f", label, self.name, is_checked=False) == digest:
            return
        changes = [PATH, *self.settings, f"LABEL {LABEL}={digest}"]
        command = ["docker", "import", *(part for change in changes for part in ("--change", change)), "-", self.name]
        importing = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=engine.env
        )
        assert importing.stdin and importing.stderr
        # When docker gives up it says why; that it no longer reads says nothing.
        with suppress(BrokenPipeError):
            root = RootFs(importing.stdin)
            self.fill(root, cache)
            root.close()
        with suppress(BrokenPipeError):
            importing.stdin.close()
        why = importing.stderr.read().decode()
        if importing.wait() != 0:
            raise RuntimeError(f"docker import {self.name}: exit {importing.returncode}\n{why}")


def install_missing(part: str, packages: dict[str, str]) -> None:
    """Debian packages the part needs, by a program of each. Says what to do where that takes a question."""
    missing = [package for program, package in packages.items() if not shutil.which(program)]
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists():
        missing.append("ca-certificates")
    is_downloading = not any(Path("/var/lib/apt/lists").glob("*_Packages*"))
    if not missing and not is_downloading:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"missing: {' '.join(missing)}; install them, or leave the part out with {skipped_by(part)}=1")
    run("apt-get", "update", "-qq")
    if missing:
        print(f"installing Debian packages: {' '.join(missing)}", flush=True)
        # The packaged services are not wanted.
        env = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=env)


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def which(program: str) -> str:
    found = shutil.which(program)
    if not found:
        raise RuntimeError(f"{program} is not installed")
    return found


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout
