"""One fold: the network is trained on the fold's training rows and scored on its validation rows.

Here the parts meet that know nothing of each other: rows by role, augmented pictures, the feed that prepares them, the
frozen trunk, and the loop that trains what lies above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from stages.lib import (
    augment,
    blending,
    checkpoint,
    feeding,
    inference,
    loss,
    metrics,
    mixing,
    pixels,
    probe,
    splits,
    team,
    training,
    trunk,
    views,
)
from stages.lib import model as models
from stages.lib.chance import seed_for
from stages.lib.preprocessing import Preprocessing


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: `store` (n, side, side, 3) uint8, `targets` (n, n_attributes) with NaN, groups and parts (n,)."""

    store: pixels.Store
    targets: np.ndarray
    attributes: list[str]
    names: list[str]
    groups: np.ndarray
    parts: np.ndarray
    stats: dict[str, Any]


def fit_fold(
    network: models.Tagger,
    inputs: Inputs,
    how: Preprocessing,
    settings: Any,
    fold: int,
    crew: team.Team,
    device: torch.device,
    kept: checkpoint.Fold,
) -> training.Fit:
    """Train one network on the training rows of `fold`."""
    roles = splits.roles(inputs.parts, settings.folds, fold)
    train_rows, val_rows = np.flatnonzero(roles == "train"), np.flatnonzero(roles == "val")
    pos_weight = pos_weight_of(inputs, fold)
    seed = seed_for(settings.seed, "fit", fold)
    seconds: list[float] = []  # of the epochs that this process trains: others may lie before an interruption
    pictures = augment.TrainingPictures(
        inputs.store, train_rows, inputs.targets, how, settings.train.resolution, settings.augment, seed
    )
    feed = feeding.Feed(pictures, settings.train.batch_size, feeding.workers_of(settings.train.workers, device), crew)
    network = network.cpu().to(memory_format=torch.channels_last)
    frozen, rest = trunk.split(network, how.resolution)
    prepared = trunk.Prepared(frozen.to(device), inputs.store, crew.part(val_rows), how, device)

    count, bf16 = views.count_of(settings.train.views, feed, frozen, device), settings.train.bf16
    kept_views = views.Views(feed, frozen, count, device, bf16)

    def batches(epoch: int) -> Iterator[mixing.Weighted]:
        if count:
            return kept_views.batches(epoch)
        mixed = mixing.mixed(feed.batches(epoch), settings.augment.mix, settings.augment.mix_alpha, seed_for(seed, "mix", epoch))
        return trunk.through(frozen, mixed, device, bf16)

    def evaluate(trained: models.Tagger) -> dict[str, float]:
        logits, targets = crew.put_together(prepared.logits(trained)), inputs.targets[val_rows]
        val_loss = metrics.mean_loss(logits, targets, pos_weight)
        return {"val_loss": val_loss, "val_ap": metrics.macro(metrics.average_precision(targets, logits))}

    def log(row: dict[str, Any]) -> None:
        seconds.append(row["seconds"])
        print(training.progress(row, len(train_rows), settings.epochs), flush=True)

    title = f"fold {fold + 1} of {settings.folds}: " if settings.folds > 1 else ""
    constant = constant_loss(inputs, settings, fold, "val")
    print(
        f"{title}{len(train_rows)} training and {len(val_rows)} validation images; constant: val loss {constant:.4f}", flush=True
    )
    recipe = training.Recipe(
        settings.lr,
        settings.train.lr_decay,
        settings.weight_decay,
        settings.train.warmup,
        settings.epochs,
        settings.train.patience,
        settings.train.ema,
        bf16,
    )
    result = training.fit(
        rest.to(device),
        batches,
        pictures.n_batches(settings.train.batch_size),
        evaluate,
        pos_weight,
        recipe,
        device,
        log,
        lambda epoch: seed_for(seed, "dropout", epoch, *[crew.rank] * (crew.rank > 0)),
        settings.train.head_start == "regression",
        kept,
        crew,
    )
    feed.close()
    result.state = trunk.joined(network, result.state)
    waited = f"; waited for data {feed.waited / sum(seconds):.1%} of the time" if seconds else ""
    print(f"  kept epoch {result.epoch}: val loss {result.val_loss:.4f}{waited}", flush=True)
    return result


def untouched(network: models.Tagger) -> dict[str, torch.Tensor]:
    """What training is going to change of the backbone, by name, as it is now."""
    state = network.backbone.state_dict(prefix="backbone.")
    return {name: tensor.cpu().clone() for name, tensor in state.items() if network.level(name) >= network.first_trained}


def member_of(
    network: models.Tagger,
    result: training.Fit,
    before: dict[str, torch.Tensor],
    features: np.ndarray,
    inputs: Inputs,
    how: Preprocessing,
    settings: Any,
    fold: int,
    device: torch.device,
) -> models.Member:
    """What is saved of `result`: the network, beside a regression on `features` (n, n_features) where that helps (blending).

    `before` is what `untouched` gave. The scores in `result` become those of what is saved.
    """
    pos_weight = pos_weight_of(inputs, fold)
    member = models.Member(result.state, list(map(float, pos_weight)), result.epoch, result.val_loss)
    if settings.train.blend == 0:
        return member
    roles = splits.roles(inputs.parts, settings.folds, fold)
    rows, shift = np.flatnonzero(roles == "val"), np.log(pos_weight)
    targets = inputs.targets[rows]
    weights, bias = probe.chosen(features, inputs.targets, roles)
    network.load_state_dict(result.state)
    tuned = inference.logits(network.to(device), inputs.store, rows, how, device) - shift
    regression = probe.log_odds(features[rows], weights, bias)
    share = blending.chosen_share(tuned, regression, targets) if settings.train.blend == "auto" else settings.train.blend
    alone, both = (blending.scaled_loss(blending.mixed(tuned, regression, part), targets) for part in (0.0, share or 0.5))
    print(f"  {blending.told(share, alone, both)}", flush=True)
    if not share:
        return member
    logits = blending.mixed(tuned, regression, share) + shift
    result.val_loss = metrics.mean_loss(logits, targets, pos_weight)
    result.val_ap = metrics.macro(metrics.average_precision(targets, logits))
    linear = {"head.1.weight": torch.from_numpy(weights).float(), "head.1.bias": torch.from_numpy(bias + shift).float()}
    return replace(member, val_loss=result.val_loss, share=share, untouched=before | linear)


def pos_weight_of(inputs: Inputs, fold: int) -> np.ndarray:
    return np.array([inputs.stats["models"][fold]["pos_weight"][name] for name in inputs.attributes])


def constant_loss(inputs: Inputs, settings: Any, fold: int, role: str) -> float:
    """Weighted loss, on the rows of `role`, of the best constant by the training rows of `fold`."""
    weight = pos_weight_of(inputs, fold)
    rows = splits.roles(inputs.parts, settings.folds, fold) == role
    logit = loss.constant_of(inputs.stats["models"][fold], inputs.attributes)
    constant = np.broadcast_to(logit, inputs.targets[rows].shape)
    return metrics.mean_loss(constant, inputs.targets[rows], weight)
