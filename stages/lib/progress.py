"""One line on the terminal that says how far a long run is; nothing where nobody looks (a pipe, a file, CI)."""

from __future__ import annotations

import sys
import time
from typing import IO

EVERY = 0.2  # seconds between two updates


class Progress:
    """`total` images, of which `already` were done by an earlier run and do not count for the rate."""

    def __init__(self, total: int, already: int, stream: IO[str] | None = None) -> None:
        self.total, self.done, self.already, self.failed = total, already, already, 0
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.started, self.shown = time.monotonic(), 0.0

    def add(self, images: int, failed: int) -> None:
        self.done, self.failed = self.done + images, self.failed + failed
        now = time.monotonic()
        if self.live and (now - self.shown >= EVERY or self.done == self.total):
            self.shown = now
            self.stream.write(f"\r\x1b[K{self.text(now - self.started)}")
            self.stream.flush()

    def text(self, seconds: float) -> str:
        rate = (self.done - self.already) / max(seconds, 1e-9)
        left = duration((self.total - self.done) / rate) if rate else "?"
        return f"{self.done}/{self.total} images  {rate:.1f} images/s  {left} left  {self.failed} could not be read"

    def close(self) -> None:
        if self.live and self.shown:
            self.stream.write("\n")
            self.stream.flush()


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
