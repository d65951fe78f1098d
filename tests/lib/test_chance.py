"""Seeds by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from stages.lib.chance import seed_for

USES = [(0, "order", 0, 0), (0, "order", 0, 1), (0, "order", 1, 0), (0, "augment", 0, 0), (1, "order", 0, 0), (0, "order"), (0,)]


def test_every_use_has_a_seed_of_its_own() -> None:
    assert len({seed_for(*use) for use in USES}) == len(USES)


def test_a_seed_is_the_same_in_every_process() -> None:
    """Python's own hash of a text is not."""
    code = "from stages.lib.chance import seed_for; print(seed_for(0, 'order', 1, 2))"
    root = Path(__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{seed_for(0, 'order', 1, 2)}\n"}


def test_seeds_do_not_depend_on_the_kind_of_number() -> None:
    assert seed_for(0, "augment", np.int64(3)) == seed_for(0, "augment", 3)


def test_seeds_fit_the_generators_and_are_spread_out() -> None:
    seeds = [seed_for(seed, "order", epoch) for seed in range(40) for epoch in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) < max(seeds) < 2**63
    torch.manual_seed(max(seeds))
    # Every bit is set about as often as not: 2000 draws, five deviations.
    for bit in range(63):
        assert abs(sum(seed >> bit & 1 for seed in seeds) - 1000) < 5 * np.sqrt(500)
