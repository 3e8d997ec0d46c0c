"""What the kernel says about processes and the machine."""

import os
import platform
import resource
import time
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


def cpu_of(pid: int) -> Cpu:
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
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return {"resident": _kib(lines["VmRSS"]), "peak": _kib(lines["VmHWM"])}


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
