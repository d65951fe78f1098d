"""The model of one split against the average of those of K folds, on the same test rows.

    python -m tests.bench.averaging IMAGES LABELS --folds 3 --seeds 2

The folds are cut from the rows that the one model trains on and stops by; its test rows are set aside before, so that no
member has seen them; each is of as many networks as the one model (`train.networks`). Averaged as predict averages: the
mean of the members' log-odds, corrected for pos_weight.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from stages.lib import decisions, files, inference, metrics, model_file, pixels
from tests.bench.fewer import others
from tests.bench.stage_runs import copied, places, run, train, validate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting other than in params.yaml")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        validate(base, args.images, args.labels, args.set)
        for seed in range(args.seeds):
            own = Path(scratch) / str(seed)
            copied(base, own)
            run("stats", *places(own, args.set, seed))
            split = files.read_table(own / "clean/splits.csv", "stats")["part"].to_numpy(str)
            others(own / "clean", own / "folds/clean", split != "test")
            folds = [*args.set, f"folds={args.folds}"]
            run("stats", *places(own / "folds", folds, seed))
            one, several = trained(own, args.set, seed), trained(own / "folds", folds, seed)
            print(f"seed {seed}, macro AP and log loss on {(split == 'test').sum()} test rows:", flush=True)
            report(own / "clean", np.flatnonzero(split == "test"), one, several)


def trained(own: Path, changes: list[str], seed: int) -> model_file.Saved:
    train(own, changes, seed)
    return model_file.load(own / "model.pth")


def report(clean: Path, rows: np.ndarray, one: model_file.Saved, several: model_file.Saved) -> None:
    targets = files.read_table(clean / "labels.csv", "validate")[one.attributes].to_numpy(float)[rows]
    single, members = log_odds(clean, rows, one), log_odds(clean, rows, several)
    for name, found in (
        ("one split", single[0]),
        *((f"fold {number}", member) for number, member in enumerate(members)),
        ("average of the folds", members.mean(axis=0)),
    ):
        loss = metrics.mean_loss(found, targets, np.ones(targets.shape[1]))
        print(f"  {name:<22}{metrics.macro(metrics.average_precision(targets, found)):.3f}  {loss:.3f}", flush=True)


def log_odds(clean: Path, rows: np.ndarray, saved: model_file.Saved) -> np.ndarray:
    """Of every member, (n_members, n_rows, n_attributes)."""
    store, device = pixels.read(clean / "pixels.npy"), inference.device_of("cpu")
    logits = (inference.logits(network, store, rows, saved.preprocessing, device) for network in saved.networks())
    return np.stack([decisions.corrected(each, saved.log_pos_weight(member)) for member, each in enumerate(logits)])


if __name__ == "__main__":
    main()
