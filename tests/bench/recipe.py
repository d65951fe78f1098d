"""Recipes against each other over seeds: variants of the settings, hidden training labels, fewer training images.

    python -m tests.bench.recipe IMAGES LABELS --seeds 3 --variant default --variant "mixup: augment.mix=mixup"
    python -m tests.bench.recipe IMAGES LABELS --seeds 3 --hide 0.3 --hide 0.6
    python -m tests.bench.recipe IMAGES LABELS --seeds 3 --rows 50 --rows 100 --rows 200

Each line is the mean and the standard deviation over seeds (which change the split too) of scores on validation rows, by which
recipes may be chosen, and on test rows, by which they may not. With --hide that share of the known training labels is made
unknown, and three ways to treat unknown labels are compared: the masked loss, training on complete rows alone, and 0 for NA. With
--rows that many training images are left. Variants are settings with `key=value`, several of them separated by blanks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages import stats
from stages.lib import files, labels, params
from tests.bench.signal import link_or_copy, run, settings

MASKED, COMPLETE, ZERO = "masked", "complete rows only", "NA as 0"
SCORES = ("val AP", "AP", "ROC-AUC", "skill", "AP features", "ROC-AUC features", "skill features", "AP constant", "seconds")


@dataclass(frozen=True)
class Trial:
    name: str
    changes: tuple[str, ...] = ()
    hidden: float = 0.0  # share of the known training labels
    treatment: str = MASKED
    rows: int = 0  # training images; 0: all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variant", action="append", default=[], metavar="NAME[: KEY=VALUE ...]")
    parser.add_argument("--hide", action="append", default=[], type=float, metavar="SHARE")
    parser.add_argument("--rows", action="append", default=[], type=int, metavar="N")
    args = parser.parse_args()
    trials = [Trial(name.strip(), tuple(changes.split())) for name, _, changes in (text.partition(":") for text in args.variant)]
    for share in args.hide:
        trials += [Trial(f"{share:.0%} hidden, {how}", hidden=share, treatment=how) for how in (MASKED, COMPLETE, ZERO)]
    trials += [Trial(f"{count} training images", rows=count) for count in args.rows]
    print(f"{'':<34}" + "".join(f"{name:>18}" for name in SCORES), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        bases: dict[tuple[str, ...], Path] = {}
        for trial in trials or [Trial("default")]:
            # Settings of validate change what is in the store.
            prepared = tuple(change for change in trial.changes if change.startswith("validate."))
            if prepared not in bases:
                bases[prepared] = Path(scratch) / str(len(bases))
                validate(bases[prepared], args.images, args.labels, trial.changes)
            found = [one_run(bases[prepared], trial, seed) for seed in range(args.seeds)]
            cells = [f"{values.mean():.3f} +- {values.std(ddof=args.seeds > 1):.3f}" for values in np.array(found).T]
            print(f"{trial.name:<34}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def validate(base: Path, images: Path, labels_file: Path, changes: tuple[str, ...]) -> None:
    base.mkdir()
    where = ("--images", images, "--labels", labels_file, "--out", base / "clean", "--metrics", base / "metrics")
    run("validate", *where, "--params", settings(base, list(changes), 0))


def one_run(base: Path, trial: Trial, seed: int) -> list[float]:
    """The SCORES of one training."""
    own = base / "run"
    shutil.copytree(base / "clean", own / "clean", copy_function=link_or_copy)
    places = ("--clean", own / "clean", "--metrics", own / "metrics", "--params", settings(own, list(trial.changes), seed))
    run("stats", *places)
    if trial.hidden or trial.rows:
        reduce(own, trial, seed)
    model = ("--model", own / "model.pth", "--frozen", own / "frozen.safetensors")
    started = time.perf_counter()
    run("train", *places, *model, "--checkpoint", own / "checkpoint")
    seconds = time.perf_counter() - started
    run("evaluate", *places, *model, "--decision", own / "decision.json", "--card", own / "card.md")
    macro = json.loads((own / "metrics/evaluation.json").read_text())["macro"]
    val_ap = json.loads((own / "metrics/train.json").read_text())["val_ap"]
    shutil.rmtree(own)
    names = ("ap", "roc_auc", "skill", "ap_features", "roc_auc_features", "skill_features", "ap_constant")
    return [val_ap, *(macro[name] for name in names), seconds]


def reduce(own: Path, trial: Trial, seed: int) -> None:
    """Hide training labels, or leave training images out; validation and test rows stay as they are."""
    table, split = files.read_table(own / "clean/labels.csv", "validate"), files.read_table(own / "clean/splits.csv", "stats")
    attributes = labels.attributes_of(table)
    targets, part = table[attributes].to_numpy(float), split["part"].to_numpy(str)
    chance = np.random.default_rng(seed)
    training = part == "train"
    known = np.argwhere(~np.isnan(targets) & training[:, None])
    gone = chance.permutation(len(known))[: round(trial.hidden * len(known))]
    targets[tuple(known[gone].T)] = np.nan
    if trial.treatment == ZERO:
        targets[training] = np.nan_to_num(targets[training])
    unused = training & np.isnan(targets).any(axis=1) if trial.treatment == COMPLETE else np.zeros(len(targets), bool)
    if trial.rows:
        unused[chance.permutation(np.flatnonzero(training))[trial.rows :]] = True
    part = np.where(unused, "unused", part)
    (own / "clean/labels.csv").unlink()  # it is a link to the original
    changed = table.assign(**dict(zip(attributes, targets.T, strict=True))).astype(dict.fromkeys(attributes, "Int8"))
    files.write_table(own / "clean/labels.csv", changed)
    files.write_table(own / "clean/splits.csv", split.assign(part=part))
    chosen = params.load(own / "params.yaml", stats.READS)
    files.write_json(own / "metrics/stats.json", stats.statistics(targets, part, attributes, chosen))


if __name__ == "__main__":
    main()
