"""Gathers files of this machine into a root file system that a container image can be imported from.

Not for deciding what belongs into an image: standins.py does.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

# Debian has one tree and these names for its parts.
MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
NOT_NEEDED = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/", "/usr/share/lintian/")


class RootFs:
    """Writes a tar stream to `output`. A file that is added twice is written once."""

    def __init__(self, output: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=output, mode="w|")
        self._written: set[str] = set()
        for name, target in MERGED.items():
            self.directory(f"/{target}")
            self.link(f"/{name}", target)
        self.directory("/tmp", mode=0o1777)

    def close(self) -> None:
        self._tar.close()

    def file(self, path: str | Path, at: str | None = None) -> None:
        """A file of this machine, at its own place or another; a link together with the file it leads to."""
        source = Path(os.path.realpath(Path(path).parent)) / Path(path).name
        if at:
            self._copy(source.resolve(), at)
            return
        self._copy(source, str(source))
        if source.is_symlink() and source.is_file():
            self.file(source.parent / os.readlink(source))

    def program(self, path: str | Path, at: str | None = None) -> None:
        """A program and the shared libraries it is linked with."""
        self.file(path, at)
        linked = subprocess.run(["ldd", os.path.realpath(path)], capture_output=True, text=True)
        # A static program has none, and ldd says so by its exit code.
        for word in linked.stdout.split():
            if word.startswith("/"):
                self.file(word)

    def packages(self, *names: str) -> None:
        """All files of Debian packages that are installed here, and of what they depend on."""
        terms = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"]
        depends = ["apt-cache", "depends", "--recurse", "--installed", *(f"--no-{term}" for term in terms), *names]
        found = {line for line in _output(depends).splitlines() if line and line[0].isalnum()}
        for path in _output(["dpkg", "--listfiles", *sorted(found)]).splitlines():
            is_wanted = path.startswith("/") and not path.startswith(NOT_NEEDED)
            if is_wanted and (os.path.islink(path) or os.path.isfile(path)):
                self.file(path)

    def tree(self, source: Path, at: str, leave_out: Callable[[str], bool] = lambda _: False) -> None:
        """A directory with everything in it, but for the names below it that are left out."""
        for path in source.rglob("*"):
            below = str(path.relative_to(source))
            if not leave_out(below) and (path.is_symlink() or path.is_file()):
                self._copy(path, f"{at}/{below}")

    def directory(self, path: str, owner: tuple[int, int] = (0, 0), mode: int = 0o755) -> None:
        member = tarfile.TarInfo(path.lstrip("/"))
        member.type = tarfile.DIRTYPE
        member.uid, member.gid = owner
        member.mode = mode
        self._write(member)

    def link(self, path: str, target: str) -> None:
        member = tarfile.TarInfo(path.lstrip("/"))
        member.type = tarfile.SYMTYPE
        member.linkname = target
        self._write(member)

    def text(self, path: str, content: str) -> None:
        member = tarfile.TarInfo(path.lstrip("/"))
        member.size = len(content.encode())
        member.mode = 0o644
        self._write(member, io.BytesIO(content.encode()))

    def _copy(self, source: Path, name: str) -> None:
        if name.lstrip("/") in self._written:
            return
        member = self._tar.gettarinfo(source, name)
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        if member.isreg():
            with source.open("rb") as content:
                self._write(member, content)
        else:
            self._write(member)

    def _write(self, member: tarfile.TarInfo, content: IO[bytes] | None = None) -> None:
        if member.name not in self._written:
            self._written.add(member.name)
            self._tar.addfile(member, content)


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
