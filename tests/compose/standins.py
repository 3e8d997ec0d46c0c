"""Images made of this machine's files, under the names of the public images that the compose file and the
Dockerfile use: no registry is needed, and both files are run as they are.

A stand-in has what ours ask of the original: its programs, its user, its volume, the toolchain with a copy of the
crates. Grafana has none: it is in no Debian release.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from images import REPOSITORY, Image, output, run, which
from rootfs import RootFs

HERE = Path(__file__)

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
QUICKLY = ["DEBUG=false", "LTO=off", "CODEGEN_UNITS=16", "OPT_LEVEL=s"]


def _rust(root: RootFs, cache: Path) -> None:
    sysroot = Path(output("rustc", "--print", "sysroot").strip())

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
    root.program(which("redis-server"))
    root.program(which("redis-cli"))
    root.directory("/data", owner=(999, 1000))


def _haproxy(root: RootFs, _: Path) -> None:
    root.program(which("haproxy"))
    _busybox(root)


def _prometheus(root: RootFs, cache: Path) -> None:
    unpacked = prometheus(cache)
    root.program(unpacked / "usr/bin/prometheus", at="/usr/bin/prometheus")
    root.directory("/prometheus", owner=(65534, 65534))
    _busybox(root)


def _busybox(root: RootFs) -> None:
    """What an Alpine image has its small programs from."""
    root.program(which("busybox"), at="/usr/bin/busybox")
    root.link("/usr/bin/wget", "busybox")


STAND_INS = [
    Image(
        "rust:1.95-slim-bookworm",
        _rust,
        ["ENV CARGO_HOME=/usr/local/cargo", *(f"ENV CARGO_PROFILE_DIST_{setting}" for setting in QUICKLY)],
        [HERE, REPOSITORY / "Cargo.lock"],
        asks=("rustc", "-vV"),
    ),
    Image("redis:7.4-alpine", _redis, ["VOLUME /data", "WORKDIR /data"], [HERE]),
    Image(
        "haproxy:3.2-alpine",
        _haproxy,
        [
            "USER 99:99",
            'ENTRYPOINT ["haproxy", "-W", "-db"]',
            'CMD ["-f", "/usr/local/etc/haproxy/haproxy.cfg"]',
        ],
        [HERE],
    ),
    Image(
        "prom/prometheus:v3.5.0",
        _prometheus,
        ["USER 65534:65534", "VOLUME /prometheus", 'ENTRYPOINT ["prometheus"]'],
        [HERE],
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
        run("cargo", "vendor", "--quiet", "--locked", str(unfinished), cwd=REPOSITORY)
        unfinished.rename(copied)
    return copied


def prometheus(cache: Path) -> Path:
    """Debian's Prometheus, unpacked but not installed: its package would bring a service and much else."""
    unpacked = cache / "prometheus"
    if not (unpacked / "usr/bin/promtool").exists():
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(parents=True)
        run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "prometheus", cwd=unpacked)
        [package] = unpacked.glob("*.deb")
        run("dpkg-deb", "--extract", package.name, ".", cwd=unpacked)
        package.unlink()
    return unpacked
