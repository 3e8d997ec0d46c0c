"""Images made of this machine's files, under the names of the public images that the compose file and the
Dockerfile use: no registry is needed, and both files are run as they are.

A stand-in has what ours ask of the original: its programs, its user, its volume, the toolchain with a copy of the
crates. Grafana has none: it is in no Debian release.
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

from engine import Engine
from rootfs import RootFs

REPOSITORY = Path(__file__).resolve().parent.parent.parent
LABEL = "mcp-fleet.stand-in"
PATH = "ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What the images are made of, and what starts them.
PACKAGES = {
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "haproxy": "haproxy",
    "redis-server": "redis-server",
    "busybox": "busybox",
    "gcc": "gcc",
    "ldd": "libc-bin",
    "find": "findutils",
    "ip": "iproute2",
}
TOOLCHAIN_PACKAGES = ["gcc", "libc6-dev", "dash", "coreutils", "findutils", "sed", "ca-certificates"]

# The image is built to be run a minute, not for years: no link-time optimisation, and parts in parallel.
QUICKLY = ["DEBUG=false", "LTO=off", "CODEGEN_UNITS=16", "OPT_LEVEL=1"]


@dataclass(frozen=True)
class StandIn:
    name: str
    fill: Callable[[RootFs, Path], None]
    settings: list[str] = field(default_factory=list)
    depends_on: list[Path] = field(default_factory=list)

    def digest(self) -> str:
        """Changes when the image could."""
        terms = [self.name, repr(self.settings), _output("dpkg-query", "--show"), _output("rustc", "-vV")]
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


def _rust(root: RootFs, cache: Path) -> None:
    sysroot = Path(_output("rustc", "--print", "sysroot").strip())

    def is_left_out(below: str) -> bool:
        is_program = below.startswith("bin/") and below not in ("bin/cargo", "bin/rustc")
        return is_program or below.startswith(("share", "etc", "libexec", "lib/rustlib/src", "lib/rustlib/components"))

    root.tree(sysroot, "/usr/local/rust", is_left_out)
    root.packages(*TOOLCHAIN_PACKAGES)
    for generated in ("/usr/bin/cc", "/usr/bin/sh", "/etc/ssl/certs/ca-certificates.crt"):
        root.file(generated)
    root.tree(crates(cache), "/usr/local/crates")
    root.text(
        "/usr/local/cargo/config.toml",
        '[source.crates-io]\nreplace-with = "copied"\n[source.copied]\ndirectory = "/usr/local/crates"\n',
    )


def _redis(root: RootFs, _: Path) -> None:
    root.program(_which("redis-server"))
    root.program(_which("redis-cli"))
    root.directory("/data", owner=(999, 1000))


def _haproxy(root: RootFs, _: Path) -> None:
    root.program(_which("haproxy"))
    _busybox(root)


def _prometheus(root: RootFs, cache: Path) -> None:
    unpacked = prometheus(cache)
    root.program(unpacked / "usr/bin/prometheus", at="/usr/bin/prometheus")
    root.directory("/prometheus", owner=(65534, 65534))
    _busybox(root)


def _busybox(root: RootFs) -> None:
    """What an Alpine image has its small programs from."""
    root.program(_which("busybox"), at="/usr/bin/busybox")
    root.link("/usr/bin/wget", "busybox")


STAND_INS = [
    StandIn(
        "rust:1.95-slim-bookworm",
        _rust,
        ["ENV CARGO_HOME=/usr/local/cargo", *(f"ENV CARGO_PROFILE_DIST_{setting}" for setting in QUICKLY)],
        [REPOSITORY / "Cargo.lock"],
    ),
    StandIn("redis:7.4-alpine", _redis, ["VOLUME /data", "WORKDIR /data"]),
    StandIn(
        "haproxy:3.2-alpine",
        _haproxy,
        [
            "USER 99:99",
            'ENTRYPOINT ["haproxy", "-W", "-db"]',
            'CMD ["-f", "/usr/local/etc/haproxy/haproxy.cfg"]',
        ],
    ),
    StandIn(
        "prom/prometheus:v3.5.0",
        _prometheus,
        ["USER 65534:65534", "VOLUME /prometheus", 'ENTRYPOINT ["prometheus"]'],
    ),
]


def download(cache: Path) -> None:
    """What the images take from the network; making them takes none."""
    crates(cache)
    prometheus(cache)


def crates(cache: Path) -> Path:
    """A copy of every crate in the lock file."""
    copied = cache / "crates" / hashlib.sha256((REPOSITORY / "Cargo.lock").read_bytes()).hexdigest()[:16]
    if not copied.exists():
        shutil.rmtree(copied.parent, ignore_errors=True)
        unfinished = copied.with_suffix(".unfinished")
        _run("cargo", "vendor", "--quiet", "--locked", str(unfinished), cwd=REPOSITORY)
        unfinished.rename(copied)
    return copied


def prometheus(cache: Path) -> Path:
    """Debian's Prometheus, unpacked but not installed: its package would bring a service and much else."""
    unpacked = cache / "prometheus"
    if not (unpacked / "usr/bin/promtool").exists():
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(parents=True)
        _run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "prometheus", cwd=unpacked)
        [package] = unpacked.glob("*.deb")
        _run("dpkg-deb", "--extract", package.name, ".", cwd=unpacked)
        package.unlink()
    return unpacked


def install_missing() -> None:
    """Debian packages the part needs. Raises what to do where that cannot be done without a question."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists():
        missing.append("ca-certificates")
    is_downloading = not any(Path("/var/lib/apt/lists").glob("*_Packages*"))
    if not missing and not is_downloading:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"missing: {' '.join(missing)}; install them, or leave the part out with MCP_FLEET_SKIP_COMPOSE=1")
    _run("apt-get", "update", "-qq")
    if missing:
        print(f"installing Debian packages: {' '.join(missing)}", flush=True)
        # The packaged services are not wanted.
        env = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=env)


def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def _which(program: str) -> str:
    found = shutil.which(program)
    if not found:
        raise RuntimeError(f"{program} is not installed")
    return found


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout
