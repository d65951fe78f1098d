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
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from stages.lib import files, labels

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
        where = ("--images", args.images, "--labels", args.labels, "--out", base / "clean", "--metrics", base / "metrics")
        run("validate", *where, "--params", settings(base, args.set, 0))
        for kind, count in (("true", args.seeds), ("shuffled", args.shuffles), ("flipped", args.flips)):
            said: Counter[str] = Counter()
            for seed in range(count):
                said.update(one_run(base, kind, seed, args.set))
            if count:
                print(f"{kind} labels, {count} runs, verdicts on all attributes: {dict(said)}", flush=True)


def one_run(base: Path, kind: str, seed: int, changes: list[str]) -> list[str]:
    """One training and evaluation; prints a line and returns the verdicts of the attributes."""
    own = base / f"{kind}{seed}"
    shutil.copytree(base / "clean", own / "clean", copy_function=link_or_copy)
    where_to = places(own, changes, seed)
    rng = np.random.default_rng(seed)
    if kind == "shuffled":
        rewrite(own, lambda known: rng.permuted(known, axis=0))
    run("stats", *where_to)
    flipped = rewrite(own, lambda known: flip(known, own, rng)) if kind == "flipped" else np.empty(0)
    model = ("--model", own / "model.pth", "--frozen", own / "frozen.safetensors")
    seconds = []
    kept, card = ("--checkpoint", own / "checkpoint"), ("--card", own / "card.md")
    for stage, more in (("train", (*model, *kept)), ("evaluate", (*model, *card, "--decision", own / "decision.json"))):
        started = time.perf_counter()
        run(stage, *where_to, *more)
        seconds.append(time.perf_counter() - started)
    found = json.loads((own / "metrics/evaluation.json").read_text())
    macro, words = found["macro"], [row["verdict"] for row in found["attributes"].values()]
    line = f"{kind} {seed}: AP {macro['ap']:.3f} (constant {macro['ap_constant']:.3f}, features {macro['ap_features']:.3f})"
    line += f", ECE {macro['ece_raw']:.3f} -> {macro['ece']:.3f}, Brier {macro['brier_raw']:.3f} -> {macro['brier']:.3f}"
    line += f", train {seconds[0]:.0f} s, evaluate {seconds[1]:.0f} s; {', '.join(words)}"
    print(line + (f"; {flips_found(own, flipped)}" if kind == "flipped" else ""), flush=True)
    shutil.rmtree(own)
    return words


def places(own: Path, changes: list[str], seed: int) -> tuple[object, ...]:
    """Where stats, train and evaluate of a run in `own` find what they read, with `changes` to the settings."""
    return ("--clean", own / "clean", "--metrics", own / "metrics", "--params", settings(own, changes, seed))


def settings(folder: Path, changes: list[str], seed: int) -> Path:
    """params.yaml with changes, in `folder`."""
    content = yaml.safe_load(Path("params.yaml").read_text())
    for change in [f"seed={seed}", *changes]:
        key, _, value = change.partition("=")
        section, _, name = key.rpartition(".")
        (content[section] if section else content)[name] = yaml.safe_load(value)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


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


def link_or_copy(source: str, target: str) -> None:
    """Pixels are large and never changed here."""
    os.link(source, target)


def run(stage: str, *arguments: object) -> None:
    done = subprocess.run([sys.executable, "-m", f"stages.{stage}", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{stage}: {done.stderr}")


if __name__ == "__main__":
    main()
