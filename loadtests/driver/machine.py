"""What the kernel says about processes and the machine."""

import os
import platform
import resource
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of a process, all its threads together."""

    total: float
    system: float

    def __sub__(self, earlier: "Cpu") -> "Cpu":
        return Cpu(self.total - earlier.total, self.system - earlier.system)


def cpu_of(pids: Iterable[int]) -> Cpu:
    """What processes have used so far, together."""
    each = [_cpu_of(pid) for pid in pids]
    return Cpu(sum(cpu.total for cpu in each), sum(cpu.system for cpu in each))


def _cpu_of(pid: int) -> Cpu:
    """`utime` + `stime` of /proc/PID/stat.

    Their grain, a hundredth of a second, is too coarse for a short load: the total
    comes from the same account in nanoseconds (clock_getcpuclockid(3)).
    """
    # The second field, the name in parentheses, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Cpu(time.clock_gettime(~pid << 3 | 2), int(fields[12]) / _TICKS)


def cpu_of_generators() -> float:
    """CPU seconds of the load generators waited for so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_of_machine() -> float:
    """CPU seconds spent by everything on this machine since it started."""
    user, nice, system, _idle, _wait, irq, softirq, *_ = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS


def memory_of(pid: int) -> dict[str, int]:
    """Resident memory of a process in KiB, now and at its peak."""
    return memory_of_all([pid])


def memory_of_all(pids: Iterable[int]) -> dict[str, int]:
    """The same of several, added up."""
    total = {"resident": 0, "peak": 0}
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        lines = dict(line.split(":", 1) for line in status if ":" in line)
        total["resident"] += _kib(lines["VmRSS"])
        total["peak"] += _kib(lines["VmHWM"])
    return total


def forget_peak(pids: Iterable[int]) -> None:
    """Lets the peak begin anew (proc(5), clear_refs); where that may not be, it does not."""
    for pid in pids:
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:
            return


def connections_to(pids: Iterable[int], port: int) -> int:
    """How many established TCP connections processes hold to a port of this machine."""
    held = _sockets_of(pids)
    wanted = f":{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[2].endswith(wanted) and row[3] == "01" and row[9] in held for row in rows)


def listeners(port: int) -> tuple[int, ...]:
    """The processes that listen on a port of this machine: a server and its workers."""
    wanted = f":{port:04X}"
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = (line.split() for table in tables for line in table.read_text().splitlines()[1:])
    inodes = {row[9] for row in rows if row[1].endswith(wanted) and row[3] == "0A"}
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())

    def listens(pid: int) -> bool:
        # Processes come and go, and not all are ours to look into.
        with suppress(OSError):
            return bool(inodes & _sockets_of([pid]))
        return False

    return tuple(pid for pid in pids if listens(pid))


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def raise_file_limit() -> int:
    """As many open files as we may have; what we start inherits it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def _sockets_of(pids: Iterable[int]) -> set[str]:
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            # It may be closed by now.
            with suppress(OSError):
                target = os.readlink(entry)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes


def describe() -> dict[str, str | int]:
    """The machine as far as it matters to a figure; nothing that names it."""
    cpu = next(
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = Path("/proc/meminfo").read_text().split("\n", 1)[0].split(":")[1]
    return {
        "cores": os.cpu_count() or 0,
        "cpu": cpu,
        "memory_gib": round(_kib(memory) / 1024**2),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def _kib(text: str) -> int:
    return int(text.split()[0])
