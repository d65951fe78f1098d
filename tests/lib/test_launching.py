"""A team of processes ends together, with the first exit code that is not 0."""

from __future__ import annotations

import sys

import pytest

from stages.lib.launching import launch


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("pass", 0),
        ("import os, sys, time; sys.exit(3) if os.environ['RANK'] == '1' else time.sleep(60)", 3),
        ("import os, sys; sys.exit(int(os.environ['RANK']) + int(os.environ['WORLD_SIZE']) - 2)", 1),
    ],
)
def test_a_team_ends_together(program: str, expected: int) -> None:
    assert launch(2, [sys.executable, "-c", program]) == expected
