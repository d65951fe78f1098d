"""What evaluate says of labels that are true, shuffled, or partly flipped: verdicts, calibration, and how many flips it finds.

    python -m tests.bench.signal IMAGES LABELS --seeds 5
    python -m tests.bench.signal IMAGES LABELS --shuffles 20 --set freeze=layer4 --set epochs=3 --set train.resolution=96
    python -m tests.bench.signal IMAGES LABELS --flips 3

Runs stats, train and evaluate in a temporary folder, once for each seed: on the labels as they are; with the labels of each
attribute shuffled among the images, which leaves nothing to learn; with 5 % of the training labels turned around.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from stages.lib import files, labels
from tests.bench.stage_runs import copied, model_places, places, run, train, validate

FLIPPED = 0.05
FIRST = 20  # rows of review.csv that are looked at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--seeds", type=int, default=0, help="runs with the labels as they are")
    parser.add_argument("--shuffles", type=int, default=0, help="runs with shuffled labels")
    parser.add_argument("--flips", type=int, default=0, help="runs with 5 %% of the training labels flipped")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting other than in params.yaml")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        validate(base, args.images, args.labels, args.set)
        for kind, count in (("true", args.seeds), ("shuffled", args.shuffles), ("flipped", args.flips)):
            said: Counter[str] = Counter()
            for seed in range(count):
                said.update(one_run(base, kind, seed, args.set))
            if count:
                print(f"{kind} labels, {count} runs, verdicts on all attributes: {dict(said)}", flush=True)


def one_run(base: Path, kind: str, seed: int, changes: list[str]) -> list[str]:
    """One training and evaluation; prints a line and returns the verdicts of the attributes."""
    own = base / f"{kind}{seed}"
    copied(base, own)
    where_to = places(own, changes, seed)
    rng = np.random.default_rng(seed)
    if kind == "shuffled":
        rewrite(own, lambda known: rng.permuted(known, axis=0))
    run("stats", *where_to)
    flipped = rewrite(own, lambda known: flip(known, own, rng)) if kind == "flipped" else np.empty(0)
    started = time.perf_counter()
    train(own, changes, seed)
    trained = time.perf_counter()
    run("evaluate", *where_to, *model_places(own), "--card", own / "card.md", "--decision", own / "decision.json")
    seconds = trained - started, time.perf_counter() - trained
    found = json.loads((own / "metrics/evaluation.json").read_text())
    macro, words = found["macro"], [row["verdict"] for row in found["attributes"].values()]
    line = f"{kind} {seed}: AP {macro['ap']:.3f} (constant {macro['ap_constant']:.3f}, features {macro['ap_features']:.3f})"
    line += f", ECE {macro['ece_raw']:.3f} -> {macro['ece']:.3f}, Brier {macro['brier_raw']:.3f} -> {macro['brier']:.3f}"
    line += f", train {seconds[0]:.0f} s, evaluate {seconds[1]:.0f} s; {', '.join(words)}"
    print(line + (f"; {flips_found(own, flipped)}" if kind == "flipped" else ""), flush=True)
    shutil.rmtree(own)
    return words


def rewrite(own: Path, change: object) -> np.ndarray:
    """Replace the labels by what `change` makes of them; returns which cells are others than before."""
    path = own / "clean/labels.csv"
    table = files.read_table(path, "validate")
    attributes = labels.attributes_of(table)
    before = table[attributes].to_numpy(float)
    after = change(before.copy())  # type: ignore[operator]
    path.unlink()  # it is a link to the original
    files.write_table(path, table.assign(**dict(zip(attributes, after.T, strict=True))).astype(dict.fromkeys(attributes, "Int8")))
    return (before != after) & ~(np.isnan(before) & np.isnan(after))


def flip(known: np.ndarray, own: Path, rng: np.random.Generator) -> np.ndarray:
    training = files.read_table(own / "clean/splits.csv", "stats")["part"].to_numpy() == "train"
    chosen = (rng.random(known.shape) < FLIPPED) & training[:, None]
    known[chosen] = 1 - known[chosen]  # NaN stays NaN
    return known


def flips_found(own: Path, flipped: np.ndarray) -> str:
    """Precision of the first suspects of review.csv: of all rows, and of the training rows, where the flips are."""
    table = files.read_table(own / "clean/labels.csv", "validate")
    names, attributes = list(table["image"]), labels.attributes_of(table)
    planted = {(names[row], attributes[column]) for row, column in np.argwhere(flipped)}
    review = files.read_table(own / "metrics/review.csv", "evaluate")
    suspects = review[review["kind"].str.startswith("label")]
    hits = pd.Series([cell in planted for cell in zip(suspects["image"], suspects["attribute"], strict=True)], dtype=bool)
    training = (suspects["seen_by"] == "regression on frozen features").to_numpy()
    return (
        f"{len(planted)} flipped; of the first {FIRST} suspects {hits.head(FIRST).sum()} are flips, "
        f"of the first {FIRST} among training rows {hits[training].head(FIRST).sum()}; {hits.sum()} are in the list"
    )


if __name__ == "__main__":
    main()
