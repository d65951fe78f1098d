"""The progress line: what it says, and where it says nothing."""

from __future__ import annotations

import io

import pytest

from stages.lib.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rate_and_time_left_are_of_this_run_and_not_of_the_one_before() -> None:
    progress = Progress(1000, 400, io.StringIO())
    progress.add(100, 3)
    assert progress.text(10) == "500/1000 images  10.0 images/s  0:50 left  3 could not be read"


def test_nothing_is_known_at_the_start() -> None:
    assert Progress(5, 0, io.StringIO()).text(0) == "0/5 images  0.0 images/s  ? left  0 could not be read"


@pytest.mark.parametrize(("stream", "spoken"), [(Terminal(), True), (io.StringIO(), False)])
def test_only_a_terminal_is_spoken_to(stream: io.StringIO, spoken: bool) -> None:
    progress = Progress(2, 0, stream)
    progress.add(2, 1)
    progress.close()
    assert ("2/2 images" in stream.getvalue()) == spoken
    assert stream.getvalue().endswith("\n") == spoken


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (86400, "24:00:00")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
