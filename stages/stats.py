"""Split the clean rows, and count what the training rows hold: base rates and the weight of a positive.

    python -m stages.stats

Reads   data/clean/labels.csv, data/clean/images.csv (the groups), params.yaml (seed, folds, stats)
Writes  data/clean/splits.csv   per image its part: train, val or test; with folds the number of its fold
        metrics/split.csv       per part and attribute: positives, negatives, unknown, positive rate
        metrics/stats.json      base rate and pos_weight per attribute, from the training rows of each model
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.lib import files, labels, params, splits
from stages.lib.errors import UserError, run_stage

READS = ("seed", "folds", "stats")


def main() -> None:
    args = arguments()
    settings = params.load(args.params, READS)
    table = files.read_table(args.clean / "labels.csv", "validate")
    described = files.read_table(args.clean / "images.csv", "validate")
    if list(described["image"]) != list(table["image"]):
        raise UserError(f"{args.clean}: labels.csv and images.csv are of different runs; run 'dvc repro --force validate'")
    groups = described["group"].to_numpy()
    attributes = labels.attributes_of(table)
    targets = table[attributes].to_numpy(float)

    chosen = parts(targets, groups, list(table["image"]), settings)
    counts = count_parts(targets, chosen, attributes)
    files.write_table(args.clean / "splits.csv", pd.DataFrame({"image": table["image"], "group": groups, "part": chosen}))
    files.write_table(args.metrics / "split.csv", counts)
    files.write_json(args.metrics / "stats.json", statistics(targets, chosen, attributes, settings))
    print(summary(counts, settings.folds))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=Path, default=Path("data/clean"), help="folder that validate has filled")
    parser.add_argument("--metrics", type=Path, default=Path("metrics"), help="folder for the figures")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    return parser.parse_args()


def parts(targets: np.ndarray, groups: np.ndarray, names: list[str], settings: Any) -> np.ndarray:
    """Part of every row as text; raises UserError where a part would stay empty."""
    share = settings.stats
    hold_out = [1 - share.val - share.test, share.val, share.test]
    shares = hold_out if settings.folds == 1 else [1 / settings.folds] * settings.folds
    number = splits.deal(targets, groups, names, shares, settings.seed)
    part_names = splits.HOLD_OUT if settings.folds == 1 else tuple(str(fold) for fold in range(settings.folds))
    empty = [name for index, name in enumerate(part_names) if not (number == index).any()]
    if empty:
        found = f"{len(names)} images in {len(np.unique(groups))} groups of near-duplicates"
        way_out = "add images, lower folds, or raise stats.val and stats.test"
        raise UserError(f"{found} are too few to split: nothing left for {', '.join(empty)}; {way_out}")
    return np.array(part_names)[number]


def count_parts(targets: np.ndarray, chosen: np.ndarray, attributes: list[str]) -> pd.DataFrame:
    """Counts per part and attribute; `positive_rate` is over known labels, NA where none is known."""
    rows = []
    for part in pd.unique(np.sort(chosen)):
        inside = targets[chosen == part]
        positive, negative = labels.positives(inside), labels.negatives(inside)
        for column, attribute in enumerate(attributes):
            known = positive[column] + negative[column]
            rate = round(positive[column] / known, 4) if known else np.nan
            unknown = len(inside) - known
            rows.append((part, attribute, positive[column], negative[column], unknown, rate))
    return pd.DataFrame(rows, columns=["part", "attribute", "positives", "negatives", "unknown", "positive_rate"])


def statistics(targets: np.ndarray, chosen: np.ndarray, attributes: list[str], settings: Any) -> dict[str, Any]:
    """Images per part, and per model (one, or one per fold) base rate and pos_weight of every attribute.

    An attribute without a known training label has no base rate; it is left out there.
    """
    share = settings.stats
    models = []
    for fold in range(settings.folds):
        train = targets[splits.roles(chosen, settings.folds, fold) == "train"]
        weights = labels.pos_weight(train, share.pos_weight, share.pos_weight_min, share.pos_weight_max)
        known = labels.positives(train) + labels.negatives(train)
        rates = {name: float(one / n) for name, one, n in zip(attributes, labels.positives(train), known, strict=True) if n}
        models.append({"base_rate": rates, "pos_weight": dict(zip(attributes, map(float, weights), strict=True))})
    images = {part: int((chosen == part).sum()) for part in pd.unique(np.sort(chosen))}
    return {"images": images, "models": models}


def summary(counts: pd.DataFrame, folds: int) -> str:
    """Positive rates per attribute, a column per part."""
    text = counts.assign(cell=counts["positives"].astype(str) + "+ " + counts["negatives"].astype(str) + "-")
    wide = text.pivot(index="attribute", columns="part", values="cell")
    wide = wide[[part for part in splits.HOLD_OUT if part in wide] if folds == 1 else sorted(wide, key=int)]
    wide = wide.loc[pd.unique(counts["attribute"])].rename_axis(None, axis=1).rename_axis(None)
    title = "positives and negatives per part" if folds == 1 else "positives and negatives per fold"
    return f"{title}\n{wide.head(12)}"


if __name__ == "__main__":
    run_stage(main)
