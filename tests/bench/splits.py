"""How evenly the split spreads each attribute, beside random splits of the same sizes.

python -m tests.bench.splits data/clean --seeds 20
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from stages.lib import files, labels, splits

SHARES = (0.6, 0.2, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clean", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--random", type=int, default=200)
    args = parser.parse_args()
    table = files.read_table(args.clean / "labels.csv", "validate")
    groups = files.read_table(args.clean / "images.csv", "validate")["group"].to_numpy()
    attributes = labels.attributes_of(table)
    targets = table[attributes].to_numpy(float)
    ours = [splits.deal(targets, groups, list(table["image"]), SHARES, seed) for seed in range(args.seeds)]
    sizes = np.bincount(ours[0], minlength=3)
    chance = [np.random.default_rng(seed).permutation(np.repeat(np.arange(3), sizes)) for seed in range(args.random)]
    print(f"positive rate per part: range over {args.seeds} seeds of ours, and 95 % range of {args.random} random splits")
    for column, name in enumerate(attributes):
        for part, title in enumerate(splits.HOLD_OUT):
            mine, random = (rates(targets[:, column], some, part) for some in (ours, chance))
            low, high = np.quantile(random, [0.025, 0.975])
            print(f"  {name:<16} {title:<6} ours {mine.min():.3f} to {mine.max():.3f}   random {low:.3f} to {high:.3f}")


def rates(targets: np.ndarray, parts: list[np.ndarray], part: int) -> np.ndarray:
    return np.array([np.nanmean(targets[chosen == part]) for chosen in parts])


if __name__ == "__main__":
    main()
