"""What happened to requests during a soak."""

import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

# Failures kept with all they said; the others are counted.
_KEPT = 200


@dataclass
class Book:
    """Written by all clients. Times are seconds since the beginning."""

    began: float = field(default_factory=time.monotonic)
    minutes: dict[int, Counter] = field(default_factory=lambda: defaultdict(Counter))
    latencies: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: list[dict] = field(default_factory=list)
    events: list[dict] = field(default_factory=list)
    samples: list[dict] = field(default_factory=list)
    by_kind: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> float:
        return time.monotonic() - self.began

    def answered(self, kind: str, seconds: float, retried: bool) -> None:
        with self.lock:
            minute = int(self.now() // 60)
            self.minutes[minute]["answered"] += 1
            self.minutes[minute]["retried"] += retried
            self.by_kind[kind].append(seconds * 1000)
            self.latencies[minute].append(seconds * 1000)

    def cut_off(self, kind: str) -> None:
        """In flight at a node that was killed: the one loss that nobody can prevent."""
        with self.lock:
            self.minutes[int(self.now() // 60)]["cut off"] += 1

    def failed(self, kind: str, what: str) -> None:
        with self.lock:
            now = self.now()
            self.minutes[int(now // 60)]["failed"] += 1
            if len(self.failures) < _KEPT:
                self.failures.append({"second": round(now, 2), "kind": kind, "what": what[:400]})

    def event(self, what: str) -> None:
        with self.lock:
            self.events.append({"second": round(self.now(), 2), "what": what})

    def sample(self, **values) -> None:
        with self.lock:
            self.samples.append({"second": round(self.now(), 2), **values})
