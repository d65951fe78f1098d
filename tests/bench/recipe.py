"""Recipes against each other over seeds: variants of the settings, hidden training labels, fewer training images.

    python -m tests.bench.recipe IMAGES LABELS --seeds 3 --variant default --variant "mixup: augment.mix=mixup"
    python -m tests.bench.recipe IMAGES LABELS --seeds 3 --variant "reference: freeze=layer3 @recipes/reference.txt"
    python -m tests.bench.recipe IMAGES LABELS --seeds 3 --hide 0.3 --hide 0.6
    python -m tests.bench.recipe IMAGES LABELS --seeds 3 --rows 50 --rows 100 --rows 200 --set stats.val=0.15

Each line is the mean and the standard deviation over seeds (which change the split too) of scores on validation rows, by
which recipes may be chosen, and on test rows, by which they may not. Validation rows flatter who stops by them; with --nested
the test rows of each seed are set aside, unseen, and the others are split anew into training, validation and test rows (by
the `stats` that are set here; the first split is by those of params.yaml): by the scores on these test rows recipes may be
chosen, too. With --hide that share of the known training labels is made unknown, and three ways to treat unknown labels are
compared: the masked loss, training on complete rows alone, and 0 for NA. With --rows that many training images are left.
Variants are settings with `key=value`, several of them separated by blanks; @FILE stands for those in a file; --set changes
all that is compared. With --out every run is kept, as a line of JSON with the scores of each of its networks epoch by epoch,
and with the 95 % intervals of its macro AP, that of the regression, and their difference.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stages import evaluate
from stages.lib import assessment, contrast, evidence, files, held_out, inference, metrics, params
from tests.bench.fewer import COMPLETE, MASKED, ZERO, NothingLeft, others, reduce
from tests.bench.stage_runs import copied, places, run, train, validate

SCORES = {  # name of a run's figure -> heading
    "val_ap": "val AP",
    "val_log_loss": "val log loss",
    "ap": "AP",
    "roc_auc": "ROC-AUC",
    "log_loss": "log loss",
    "ap_features": "of features: AP",
    "roc_auc_features": "ROC-AUC",
    "log_loss_features": "log loss",
    "ap_constant": "constant: AP",
    "log_loss_constant": "log loss",
    "epochs": "epochs",
    "seconds": "train, s",
}


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
    parser.add_argument("--first-seed", type=int, default=0, help="to go on where an earlier call with --out ended")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME[: KEY=VALUE ...]")
    parser.add_argument("--nested", action="store_true", help="set the test rows aside and split the others anew")
    parser.add_argument("--hide", action="append", default=[], type=float, metavar="SHARE")
    parser.add_argument("--rows", action="append", default=[], type=int, metavar="N")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting other than in params.yaml, for all"
    )
    parser.add_argument("--out", type=Path, help="file that gets a line of JSON per run")
    args = parser.parse_args()
    trials = [variant(text) for text in args.variant]
    for share in args.hide:
        trials += [Trial(f"{share:.0%} hidden, {how}", hidden=share, treatment=how) for how in (MASKED, COMPLETE, ZERO)]
    trials += [Trial(f"{count} training images", rows=count) for count in args.rows]
    print(f"{'':<34}" + "".join(f"{heading:>16}" for heading in SCORES.values()), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        bases: dict[tuple[str, ...], Path] = {}
        for trial in trials or [Trial("default")]:
            trial = replace(trial, changes=(*args.set, *trial.changes))
            # Settings of validate change what is in the store.
            prepared = tuple(change for change in trial.changes if change.startswith("validate."))
            if prepared not in bases:
                bases[prepared] = Path(scratch) / str(len(bases))
                validate(bases[prepared], args.images, args.labels, trial.changes)
            found = []
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                try:
                    found.append(one_run(bases[prepared], trial, seed, args.nested))
                except NothingLeft:
                    print(f"{trial.name:<34}{'no training image is left':>16}", flush=True)
                    break
                if args.out:
                    with args.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"trial": trial.name, "seed": seed, **found[-1]}) + "\n")
            if not found:
                continue
            values = np.array([[row[name] for name in SCORES] for row in found])
            cells = zip(values.mean(axis=0), values.std(axis=0, ddof=len(found) > 1), strict=True)
            print(f"{trial.name:<34}" + "".join(f"{f'{mean:.3f} ± {std:.3f}':>16}" for mean, std in cells), flush=True)


def variant(text: str) -> Trial:
    """`name: key=value @file` -> a trial."""
    name, _, rest = text.partition(":")
    changes: list[str] = []
    for word in rest.split():
        content = Path(word[1:]).read_text(encoding="utf-8").split() if word.startswith("@") else [word]
        changes += [item for item in content if item != "-S"]
    return Trial(name.strip(), tuple(changes))


def one_run(base: Path, trial: Trial, seed: int, nested: bool = False) -> dict[str, Any]:
    """The SCORES of one training, and those of its epochs."""
    own = base / "run"
    shutil.rmtree(own, ignore_errors=True)  # of a trial that left nothing to train on
    copied(base, own)
    if nested:
        # The rows set aside are those that a report of the same seed is about: other shares are for the inner split alone.
        run("stats", *places(own, [change for change in trial.changes if not change.startswith("stats.")], seed))
        part = files.read_table(own / "clean/splits.csv", "stats")["part"].to_numpy(str)
        others(own / "clean", own / "others/clean", part != "test")
        own = own / "others"
    run("stats", *places(own, trial.changes, seed))
    if trial.hidden or trial.rows:
        reduce(own, trial.hidden, trial.treatment, trial.rows, seed)
    started = time.perf_counter()
    train(own, trial.changes, seed)
    seconds = time.perf_counter() - started
    by_epoch = files.read_table(own / "metrics/epochs.csv", "train")
    fits = [rows for _, rows in by_epoch.groupby("fit")]
    found: dict[str, Any] = {f"{name}_by_epoch": [rows[name].tolist() for rows in fits] for name in ("val_ap", "val_loss")}
    found |= {"epochs": len(by_epoch) / len(fits), "seconds": seconds}
    where = argparse.Namespace(
        model=own / "model.pth", clean=own / "clean", frozen=own / "frozen.safetensors", metrics=own / "metrics"
    )
    tta = params.load(own / "params.yaml", ("predict.tta",)).predict.tta
    found |= scores(evaluate.read_inputs(where, folds=1), tta)
    return found


class Mirrored(nn.Module):
    """What `predict.tta` makes of a network; evaluate has none of it, but a recipe is judged with it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return (self.network(batch) + self.network(batch.flip(-1))) / 2


def scores(inputs: held_out.Inputs, tta: bool) -> dict[str, float]:
    """Macro AP, ROC-AUC and mean log loss over known cells (corrected for pos_weight, not calibrated): of the network on
    validation and test rows, and on test rows of the regression on frozen features and of the base rate of training rows. With
    the `intervals` of some."""
    device = inference.device_of("cpu")
    network: nn.Module = inputs.saved.networks()[0]
    network = Mirrored(network) if tta else network
    val, test = (held_out.score(inputs, network, 1, 0, role, device) for role in ("val", "test"))
    features = assessment.features_log_odds(inputs, folds=1)[test.rows]
    found: dict[str, float] = {}
    for name, rows, log_odds in (
        ("val_{}", val.rows, val.log_odds),
        ("{}", test.rows, test.log_odds),
        ("{}_features", test.rows, features),
        ("{}_constant", test.rows, test.constant),
    ):
        targets = inputs.targets[rows]
        found |= {
            name.format("ap"): metrics.macro(metrics.average_precision(targets, log_odds)),
            name.format("roc_auc"): metrics.macro(metrics.roc_auc(targets, log_odds)),
            name.format("log_loss"): metrics.mean_loss(log_odds, targets, np.ones(targets.shape[1])),
        }
    return found | intervals(inputs, test, features)


def intervals(inputs: held_out.Inputs, test: held_out.Scored, features: np.ndarray) -> dict[str, float]:
    """Both ends of the intervals of macro AP on test rows: of the network, of the regression, of the first less the second."""
    rest = (test.constant, inputs.groups[test.rows])
    network, regression = (
        evidence.Outcome(inputs.targets[test.rows], log_odds, log_odds >= 0, *rest) for log_odds in (test.log_odds, features)
    )
    found: dict[str, float] = {}
    for name, outcome in (("ap", network), ("ap_features", regression)):
        macro = evidence.assess(inputs.saved.attributes, outcome, 0)[1]
        found |= {f"{name}_{side}": macro[f"ap_{side}"] for side in ("low", "high")}
    beside = contrast.contrast(inputs.saved.attributes, network, regression, 0)
    gain = beside[(beside["score"] == "ap") & beside["macro"]].iloc[0]
    return found | {f"ap_gain_{side}": float(gain[side]) for side in ("low", "high")}


if __name__ == "__main__":
    main()
