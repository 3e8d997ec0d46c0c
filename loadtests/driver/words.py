"""What the driver says while it runs."""

import sys
import time

_BEGAN = time.monotonic()


def say(text: str) -> None:
    """With the seconds since the beginning: runs are long."""
    print(f"{time.monotonic() - _BEGAN:6.0f} s  {text}", file=sys.stderr, flush=True)
