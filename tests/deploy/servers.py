"""The servers that are deployed: images made of this machine's files, under the names that the built-in templates use.

`mcp/time` is Debian's Python with the real server from PyPI, which speaks on standard input and output; `mcp-fleet`
is this program, whose `demo` server speaks HTTP; `mcp-fleet-odd` does what its caller says, well or badly
(`templates` beside this file).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from images import REPOSITORY, Image, output, run, which
from rootfs import RootFs

HERE = Path(__file__)

# What the images are made of, and what starts them.
PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "docker-compose": "docker-compose",
    "ip": "iproute2",
    "ldd": "libc-bin",
    "redis-server": "redis-server",
    "/usr/bin/python3": "python3",
    "/usr/bin/pip3": "python3-pip",
}

WHEELS = ["mcp-server-time==2026.10.19", "tzdata"]
DEBIAN_PYTHON = "/usr/bin/python3"
PROGRAM = REPOSITORY / "target/debug/mcp-fleet"
ODD = REPOSITORY / "tests/it/support/scripted_stdio.py"
TEMPLATES = HERE.with_name("templates")
BRIDGE = REPOSITORY / "target/debug/mcp-fleet-bridge"


def _python(root: RootFs) -> None:
    """Debian's Python, compiled as its package does when it is installed: a server that compiles everything first starts
    twice as slowly."""
    root.packages("python3")
    library = Path(output(DEBIAN_PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))").strip())
    root.tree(library, str(library), lambda below: below.startswith(("test/", "dist-packages/")))


def _time(root: RootFs, cache: Path) -> None:
    _python(root)
    with tempfile.TemporaryDirectory() as scratch:
        compiled = Path(scratch) / "python"
        shutil.copytree(wheels(cache), compiled, symlinks=True)
        run(DEBIAN_PYTHON, "-m", "compileall", "-q", str(compiled))
        root.tree(compiled, "/opt/python")


def _odd(root: RootFs, _: Path) -> None:
    _python(root)
    root.file(ODD, at="/server.py")


def _fleet(root: RootFs, _: Path) -> None:
    root.program(PROGRAM, at="/mcp-fleet")
    root.file(BRIDGE, at="/mcp-fleet-bridge")


def _redis(root: RootFs, _: Path) -> None:
    root.program(which("redis-server"))
    root.program(which("redis-cli"))
    root.directory("/data", owner=(999, 1000))


IMAGES = [
    Image(
        "mcp/time:latest",
        _time,
        [
            "ENV PYTHONPATH=/opt/python",
            "ENV PYTHONDONTWRITEBYTECODE=1",
            'ENTRYPOINT ["/usr/bin/python3", "-m", "mcp_server_time"]',
        ],
        [HERE],
    ),
    Image(
        "mcp-fleet-odd:latest",
        _odd,
        ["ENV PYTHONDONTWRITEBYTECODE=1", 'ENTRYPOINT ["/usr/bin/python3", "/server.py"]'],
        [HERE, ODD],
    ),
    Image(
        "mcp-fleet:local",
        _fleet,
        ["USER 65532:65532", 'ENTRYPOINT ["/mcp-fleet"]', 'CMD ["serve"]'],
        [HERE, PROGRAM, BRIDGE],
    ),
    Image("redis:7.4-alpine", _redis, ["VOLUME /data", "WORKDIR /data"], [HERE]),
]


def prepare(cache: Path) -> None:
    """What takes the network or the compiler."""
    wheels(cache)
    # The program that `cargo bridge` makes, without its optimisations: static, or it would not run in the images.
    run("cargo", "build", "--locked", "--quiet", "--bin", "mcp-fleet", cwd=REPOSITORY)
    static = ["-C", "target-feature=+crt-static", "-C", "strip=symbols"]
    run("cargo", "rustc", "--locked", "--quiet", "--bin", BRIDGE.name, "--", *static, cwd=REPOSITORY)


def wheels(cache: Path) -> Path:
    """The server and what it needs, for Debian's Python."""
    version = output(DEBIAN_PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    digest = hashlib.sha256(" ".join([version, *WHEELS]).encode()).hexdigest()[:16]
    unpacked = cache / "wheels" / digest
    if not unpacked.exists():
        shutil.rmtree(unpacked.parent, ignore_errors=True)
        unfinished = unpacked.with_suffix(".unfinished")
        options = ["--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--no-compile"]
        options += ["--python-version", version, "--target", str(unfinished)]
        run(_python_with_pip(), "-m", "pip", "install", *options, *WHEELS)
        unfinished.rename(unpacked)
    return unpacked


def _python_with_pip() -> str:
    for python in (sys.executable, DEBIAN_PYTHON):
        if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return python
    raise RuntimeError("pip is not installed: apt-get install python3-pip")
