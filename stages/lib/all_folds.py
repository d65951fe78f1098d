"""The work of the train stage: the early word, the networks of each fold, and what is written of them.

Apart from stages/train.py, which reads command line and settings before PyTorch is imported.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
import torchvision

from stages.lib import (
    backbones,
    checkpoint,
    code,
    early_word,
    files,
    fitting,
    inference,
    labels,
    metrics,
    model_file,
    pixels,
    probe,
    splits,
    team,
    training,
)
from stages.lib import model as models
from stages.lib.chance import further, seed_for
from stages.lib.errors import UserError
from stages.lib.preprocessing import Preprocessing


@dataclass(frozen=True)
class Done:
    """A trained fold: how it went with each network, what is saved, the best constant's validation loss, the regression."""

    fits: list[training.Fit]
    outcome: fitting.Outcome
    constant: float
    regression: probe.Regression


@dataclass(frozen=True)
class Early:
    """The early word: its `table`, the frozen `features` (n, n_features), and the regression's `log_odds` (n, n_attributes)."""

    table: pd.DataFrame
    features: np.ndarray
    log_odds: np.ndarray


def train(args: argparse.Namespace, settings: Any, used: dict[str, Any]) -> None:
    """The stage's work, alone or in a team; `used` are the settings that decide what comes out, by dotted name."""
    with team.opened(inference.device_of(settings.train.device)) as (crew, device):
        train_as(args, settings, used, crew, device)


def train_as(args: argparse.Namespace, settings: Any, used: dict[str, Any], crew: team.Team, device: torch.device) -> None:
    inputs = read_inputs(args)
    run = description(args, settings, used, device) if crew.rank == 0 else {}  # the others carry on with what the first one does
    with checkpoint.opened(args.checkpoint, run, crew) as kept:
        done: list[Done] = []
        for fold in range(settings.folds):
            fitted: list[fitting.Fitted] = []
            for number in range(settings.train.networks):
                torch.manual_seed(seed_for(settings.seed, "backbone"))  # random weights are those of all, as the features are
                sides = settings.train.test_resolution, settings.train.resolution
                backbone = backbones.create(settings.backbone, settings.weights, *sides)
                how = preprocessing(backbone, settings)
                own = fitting.Fold(fold, inputs, how, settings, device)
                torch.manual_seed(seed_for(settings.seed, "head", fold, *further(number)))
                network = models.Tagger(backbone, len(inputs.attributes), settings.train.hidden, settings.dropout)
                network.freeze(settings.freeze)
                if fold == number == 0 and crew.rank == 0:
                    checkpoint.check_space(args.checkpoint, network, settings.folds * settings.train.networks)
                    heard = early(backbone, inputs, how, settings, device, kept)
                    title = f"{settings.backbone}, weights {settings.weights}, freeze {settings.freeze}, on {device}"
                    print(models.opening(network, title), flush=True)
                if number == 0:
                    before = fitting.untouched(network)
                    if crew.rank == 0:
                        regression = probe.chosen(heard.features, inputs.targets, own.roles())
                # The others of a team begin with the first one's weights, and what is carried on with comes from the checkpoint.
                if crew.rank == 0 and settings.train.head_start == "regression" and not kept.fold(fold, number).begun:
                    start_head(network, regression, own)
                fitted.append(fitting.fit_fold(network, own, crew, kept.fold(fold, number), number))
            if crew.rank == 0:
                outcome = fitting.outcome_of(fitted, before, heard.features, regression, own)
                done.append(Done([one.fit for one in fitted], outcome, own.constant_loss("val"), regression))
        crew.wait()  # for those that still read the checkpoint, which goes now
        if crew.rank == 0:
            write_outputs(args, settings, used, inputs, how, heard, done)


def read_inputs(args: argparse.Namespace) -> fitting.Inputs:
    table = files.read_table(args.clean / "labels.csv", "validate")
    attributes = labels.attributes_of(table)
    split = files.read_table(args.clean / "splits.csv", "stats")
    store = pixels.read(args.clean / "pixels.npy")
    if list(split["image"]) != list(table["image"]) or len(store) != len(table):
        raise UserError(f"{args.clean}: the tables and the pixels are of different runs; run 'dvc repro'")
    stats = files.read_json(args.metrics / "stats.json", "stats")
    targets, groups, parts = table[attributes].to_numpy(float), split["group"].to_numpy(), split["part"].to_numpy()
    return fitting.Inputs(store, targets, attributes, list(table["image"]), groups, parts, stats)


def description(args: argparse.Namespace, settings: Any, used: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """All that decides what training ends with: a checkpoint is only used where every item is the same."""
    read = [args.clean / "labels.csv", args.clean / "splits.csv", args.clean / "pixels.npy", args.metrics / "stats.json"]
    read += [Path(settings.weights)] if Path(settings.weights).is_file() else []
    packages = {module.__name__: str(module.__version__) for module in (np, timm, torch, torchvision)}
    content = {str(path.name): files.fingerprint(path) for path in read}
    return used | content | packages | {"code": code.digest_of("stages.train"), "device": device.type}


def preprocessing(backbone: torch.nn.Module, settings: Any) -> Preprocessing:
    mean, std = backbones.mean_and_std(backbone)
    kept = settings.train.center_crop
    return Preprocessing(settings.validate.side, settings.validate.fit, settings.train.test_resolution, kept, mean, std)


def early(
    backbone: torch.nn.Module,
    inputs: fitting.Inputs,
    how: Preprocessing,
    settings: Any,
    device: torch.device,
    kept: checkpoint.Checkpoint,
) -> Early:
    """Say what logistic regression on the frozen features reaches."""
    started = time.perf_counter()
    print(f"early word: reading the frozen features of {len(inputs.store)} images ...", flush=True)
    rows = np.arange(len(inputs.store))
    features = kept.features(lambda: probe.features(backbone, inputs.store, rows, how, device), len(rows))
    seed = seed_for(settings.seed, "early word")
    fold_of = early_word.folds_of(inputs.parts, settings.folds, inputs.targets, inputs.groups, inputs.names, seed)
    table, log_odds = early_word.listen(inputs.attributes, features, inputs.targets, inputs.groups, fold_of, seed)
    seconds = time.perf_counter() - started
    print(early_word.text(table, int((fold_of >= 0).sum()), seconds, settings.weights == "none"), flush=True)
    return Early(table, features, log_odds)


def start_head(network: models.Tagger, regression: probe.Regression, fold: fitting.Fold) -> None:
    """Let the head begin as the regression that evaluate reports beside the network; the loss shifts it by log(pos_weight)."""
    network.start_head(regression.weights, regression.bias + np.log(fold.pos_weight()))


def write_outputs(
    args: argparse.Namespace,
    settings: Any,
    used: dict[str, Any],
    inputs: fitting.Inputs,
    how: Preprocessing,
    heard: Early,
    done: list[Done],
) -> None:
    fits, members = [fit for fold in done for fit in fold.fits], [fold.outcome.member for fold in done]
    # `fit` counts them through: the networks of the first fold, then those of the next.
    iterations = pd.concat([pd.DataFrame(fit.iterations).assign(fit=number) for number, fit in enumerate(fits)])
    epochs = pd.concat([pd.DataFrame(fit.epochs).assign(fit=number) for number, fit in enumerate(fits)])
    figures = {
        "epochs": float(np.mean([len(fit.epochs) for fit in fits])),
        "best_epoch": float(np.mean([fit.epoch for fit in fits])),
        "val_loss": float(np.mean([fold.outcome.val_loss for fold in done])),
        "val_loss_constant": float(np.mean([fold.constant for fold in done])),
        "val_ap": metrics.macro(np.array([fold.outcome.val_ap for fold in done])),
        "blend": float(np.mean([member.share for member in members])),
        "early_ap": metrics.macro(heard.table["ap"].to_numpy(float)),
    }
    saved = model_file.Saved(
        settings.backbone, inputs.attributes, settings.train.hidden, list(settings.dropout), how, used, members
    )
    model_file.save(args.model, saved)
    split = splits.fingerprint(inputs.names, inputs.parts)
    weights, bias = (np.stack([getattr(fold.regression, name) for fold in done]) for name in ("weights", "bias"))
    files.write_arrays(args.frozen, features=heard.features, log_odds=heard.log_odds, weights=weights, bias=bias, split=split)
    files.write_table(args.metrics / "early_word.csv", heard.table.round(4))
    files.write_table(args.metrics / "iterations.csv", iterations.round(6))
    files.write_table(args.metrics / "epochs.csv", epochs.round(6))
    kept = [fit.epoch for fit in fits]
    from stages.lib import plots  # not at the top: before the first epoch nobody should wait for matplotlib

    plots.loss_curve(args.metrics / "loss_curve.png", iterations, epochs, figures["val_loss_constant"], kept)
    files.write_json(args.metrics / "train.json", {k: v for k, v in figures.items() if not np.isnan(v)})
