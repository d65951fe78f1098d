"""Fine-tune a pretrained network on the training rows; stop when the validation loss no longer falls.

    python -m stages.train

Reads   data/clean/{labels.csv, pixels.npy, splits.csv}, metrics/stats.json, params.yaml
        (seed, folds, backbone, weights, freeze, dropout, weight_decay, lr, epochs, validate.side, validate.fit, train, augment)
Writes  models/model.pth         self-sufficient: weights, attributes, preprocessing, settings (one member per fold)
        metrics/train.json       epochs, kept epoch, validation loss beside the constant's, validation AP
        metrics/iterations.csv, metrics/epochs.csv, metrics/loss_curve.png
        metrics/early_word.csv   what logistic regression on the frozen features reaches, told before the first epoch
        data/frozen.safetensors          those features of every image, and the regression's cross-validated log-odds
        models/checkpoint/       while it trains; after a kill the same command carries on with what is there
"""

from __future__ import annotations

import argparse
import os
import sys
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
    memory,
    metrics,
    params,
    pixels,
    plots,
    probe,
    splits,
    team,
    training,
)
from stages.lib import model as models
from stages.lib.chance import seed_for
from stages.lib.errors import UserError, run_stage
from stages.lib.preprocessing import Preprocessing

READS = (
    *("seed", "folds", "backbone", "weights", "freeze", "dropout", "weight_decay", "lr", "epochs"),
    *("validate.side", "validate.fit", "train", "augment"),
)
WITHOUT_EFFECT = ("train.workers",)  # on what training ends with


@dataclass(frozen=True)
class Early:
    """The early word: its `table`, the frozen `features` (n, n_features), and the regression's `log_odds` (n, n_attributes)."""

    table: pd.DataFrame
    features: np.ndarray
    log_odds: np.ndarray


def main() -> None:
    args = arguments()
    memory.keep_freed()
    settings = params.load(args.params, READS)
    if settings.train.processes > 1 and "WORLD_SIZE" not in os.environ:  # torchrun has started them already
        sys.exit(team.launch(settings.train.processes, [sys.executable, "-m", "stages.train", *sys.argv[1:]]))
    with team.opened(inference.device_of(settings.train.device)) as (crew, device):
        train(args, settings, crew, device)


def train(args: argparse.Namespace, settings: Any, crew: team.Team, device: torch.device) -> None:
    inputs = read_inputs(args)
    run = description(args, settings, device) if crew.rank == 0 else {}  # the others carry on with what the first one does
    with checkpoint.opened(args.checkpoint, run, crew) as kept:
        fits, members, constants = [], [], []
        for fold in range(settings.folds):
            torch.manual_seed(seed_for(settings.seed, "backbone"))  # random weights are those of all folds, as the features are
            backbone = backbones.create(settings.backbone, settings.weights, settings.train.test_resolution)
            backbones.check_resolution(backbone, settings.backbone, settings.train.resolution)
            how = preprocessing(backbone, settings)
            own = fitting.Fold(fold, inputs, how, settings, device)
            torch.manual_seed(seed_for(settings.seed, "head", fold))
            network = models.Tagger(backbone, len(inputs.attributes), settings.train.hidden, settings.dropout)
            network.freeze(settings.freeze)
            if fold == 0 and crew.rank == 0:
                checkpoint.check_space(args.checkpoint, network, settings.folds)
                heard = early(backbone, inputs, how, settings, device, kept)
                title = f"{settings.backbone}, weights {settings.weights}, freeze {settings.freeze}, on {device}"
                print(models.opening(network, title), flush=True)
            # The others of a team begin with the first one's weights, and what is carried on with comes from the checkpoint.
            if settings.train.head_start == "regression" and crew.rank == 0 and not kept.fold(fold).begun:
                start_head(network, heard.features, own)
            before = fitting.untouched(network)
            result = fitting.fit_fold(network, own, crew, kept.fold(fold))
            fits.append(result)
            constants.append(own.constant_loss("val"))
            if crew.rank == 0:
                members.append(fitting.member_of(network, result, before, heard.features, own))
        crew.wait()  # for those that still read the checkpoint, which goes now
        if crew.rank == 0:
            write_outputs(args, settings, inputs, how, fits, members, constants, heard)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=Path, default=Path("data/clean"), help="folder that validate and stats have filled")
    parser.add_argument("--model", type=Path, default=Path("models/model.pth"), help="where the model goes")
    parser.add_argument("--frozen", type=Path, default=Path("data/frozen.safetensors"), help="where the frozen features go")
    parser.add_argument("--metrics", type=Path, default=Path("metrics"), help="folder for figures, and of stats.json")
    parser.add_argument("--checkpoint", type=Path, default=Path("models/checkpoint"), help="folder for an unfinished training")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    return parser.parse_args()


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


def description(args: argparse.Namespace, settings: Any, device: torch.device) -> dict[str, Any]:
    """All that decides what training ends with: a checkpoint is only used where every item is the same."""
    read = [args.clean / "labels.csv", args.clean / "splits.csv", args.clean / "pixels.npy", args.metrics / "stats.json"]
    read += [Path(settings.weights)] if Path(settings.weights).is_file() else []
    packages = {module.__name__: str(module.__version__) for module in (np, timm, torch, torchvision)}
    content = {str(path.name): files.fingerprint(path) for path in read}
    return (
        params.flat(settings, READS, WITHOUT_EFFECT)
        | content
        | packages
        | {"code": code.digest_of("stages.train"), "device": device.type}
    )


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


def start_head(network: models.Tagger, features: np.ndarray, fold: fitting.Fold) -> None:
    """Let the head begin as the regression that evaluate reports beside the network; the loss shifts it by log(pos_weight)."""
    weights, bias = probe.chosen(features, fold.inputs.targets, fold.roles())
    network.start_head(weights, bias + np.log(fold.pos_weight()))


def write_outputs(
    args: argparse.Namespace,
    settings: Any,
    inputs: fitting.Inputs,
    how: Preprocessing,
    fits: list[training.Fit],
    members: list[models.Member],
    constants: list[float],
    heard: Early,
) -> None:
    iterations = pd.concat([pd.DataFrame(fit.iterations).assign(fold=fold) for fold, fit in enumerate(fits)])
    epochs = pd.concat([pd.DataFrame(fit.epochs).assign(fold=fold) for fold, fit in enumerate(fits)])
    figures = {
        "epochs": float(np.mean([len(fit.epochs) for fit in fits])),
        "best_epoch": float(np.mean([fit.epoch for fit in fits])),
        "val_loss": float(np.mean([fit.val_loss for fit in fits])),
        "val_loss_constant": float(np.mean(constants)),
        "val_ap": metrics.macro(np.array([fit.val_ap for fit in fits])),
        "blend": float(np.mean([member.share for member in members])),
        "early_ap": metrics.macro(heard.table["ap"].to_numpy(float)),
    }
    used = params.flat(settings, READS, WITHOUT_EFFECT)
    saved = models.Saved(settings.backbone, inputs.attributes, settings.train.hidden, list(settings.dropout), how, used, members)
    models.save(args.model, saved)
    split = splits.fingerprint(inputs.names, inputs.parts)
    files.write_arrays(args.frozen, features=heard.features, log_odds=heard.log_odds, split=split)
    files.write_table(args.metrics / "early_word.csv", heard.table.round(4))
    files.write_table(args.metrics / "iterations.csv", iterations.round(6))
    files.write_table(args.metrics / "epochs.csv", epochs.round(6))
    kept = [fit.epoch for fit in fits]
    plots.loss_curve(args.metrics / "loss_curve.png", iterations, epochs, figures["val_loss_constant"], kept)
    files.write_json(args.metrics / "train.json", {k: v for k, v in figures.items() if not np.isnan(v)})


if __name__ == "__main__":
    run_stage(main)
