"""One fold: its networks are trained on the fold's training rows and scored on its validation rows.

Here the parts meet that know nothing of each other: rows by role, augmented pictures, the feed that prepares them, the
frozen trunk, and the loop that trains what lies above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from stages.lib import (
    augment,
    blending,
    checkpoint,
    feeding,
    fusing,
    loss,
    metrics,
    mixing,
    model_file,
    pixels,
    probe,
    splits,
    team,
    training,
    trunk,
    views,
)
from stages.lib import model as models
from stages.lib.chance import further, seed_for
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


@dataclass(frozen=True)
class Fold:
    """One split of the rows into roles, and how its networks are trained. `number` counts the folds from 0."""

    number: int
    inputs: Inputs
    how: Preprocessing
    settings: Any
    device: torch.device

    def rows(self, role: str) -> np.ndarray:
        return np.flatnonzero(self.roles() == role)

    def roles(self) -> np.ndarray:
        return splits.roles(self.inputs.parts, self.settings.folds, self.number)

    def pos_weight(self) -> np.ndarray:
        """Weights of the positive labels, shape (n_attributes,)."""
        weights = self.inputs.stats["models"][self.number]["pos_weight"]
        return np.array([weights[name] for name in self.inputs.attributes])

    def constant_loss(self, role: str) -> float:
        """Weighted loss, on the rows of `role`, of the best constant by the training rows."""
        targets = self.inputs.targets[self.rows(role)]
        logit = loss.constant_of(self.inputs.stats["models"][self.number], self.inputs.attributes)
        return metrics.mean_loss(np.broadcast_to(logit, targets.shape), targets, self.pos_weight())


@dataclass(frozen=True)
class Fitted:
    """A trained network: how it went, and its logits of the validation rows (n_rows, n_attributes), where somebody asks for
    them: without blending, of a network that is alone in its fold, nobody does."""

    fit: training.Fit
    logits: np.ndarray | None


def fit_fold(network: models.Tagger, fold: Fold, crew: team.Team, kept: checkpoint.Fold, number: int = 0) -> Fitted:
    """Train one network, the `number`th of the fold (from 0), on the training rows of `fold`."""
    inputs, how, settings, device = fold.inputs, fold.how, fold.settings, fold.device
    train_rows, val_rows, pos_weight = fold.rows("train"), fold.rows("val"), fold.pos_weight()
    seed = seed_for(settings.seed, "fit", fold.number, *further(number))
    seconds: list[float] = []  # of the epochs that this process trains: others may lie before an interruption
    pictures = augment.TrainingPictures(
        inputs.store, train_rows, inputs.targets, how, settings.train.resolution, settings.augment, seed
    )
    feed = feeding.Feed(pictures, settings.train.batch_size, feeding.workers_of(settings.train.workers, device), crew)
    network = network.cpu().to(memory_format=torch.channels_last)
    frozen, rest = trunk.split(network, how.resolution)
    frozen = fusing.at_work(frozen, how.resolution, device)
    prepared = trunk.Prepared(frozen, inputs.store, crew.part(val_rows), how, device)

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

    title = f"fold {fold.number + 1} of {settings.folds}: " if settings.folds > 1 else ""
    title += f"network {number + 1} of {settings.train.networks}: " if settings.train.networks > 1 else ""
    constant = fold.constant_loss("val")
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
        lambda epoch: seed_for(seed, "dropout", epoch, *further(crew.rank)),
        settings.train.head_start == "regression",
        kept,
        crew,
    )
    feed.close()
    rest.load_state_dict(result.state)
    asked = settings.train.blend != 0 or settings.train.networks > 1
    logits = crew.put_together(prepared.logits(rest)) if asked else None
    result.state = trunk.joined(network, result.state)
    waited = f"; waited for data {feed.waited / sum(seconds):.1%} of the time" if seconds else ""
    print(f"  kept epoch {result.epoch}: val loss {result.val_loss:.4f}{waited}", flush=True)
    return Fitted(result, logits)


def untouched(network: models.Tagger) -> dict[str, torch.Tensor]:
    """What training is going to change of the backbone, by name, as it is now."""
    state = network.backbone.state_dict(prefix="backbone.")
    return {name: tensor.cpu().clone() for name, tensor in state.items() if network.level(name) >= network.first_trained}


@dataclass(frozen=True)
class Outcome:
    """What is saved of a fold, with the validation loss and AP of that."""

    member: model_file.Member
    val_loss: float
    val_ap: float


def outcome_of(
    fitted: Sequence[Fitted],
    before: dict[str, torch.Tensor],
    features: np.ndarray,
    regression: probe.Regression,
    fold: Fold,
) -> Outcome:
    """The networks of one fold together, beside the regression on `features` (n, n_features) where that helps (blending).

    `before` is what `untouched` gave.
    """
    inputs, pos_weight, choice = fold.inputs, fold.pos_weight(), fold.settings.train.blend
    first, *rest = (one.fit for one in fitted)
    others = [{name: tensor for name, tensor in fit.state.items() if not torch.equal(tensor, first.state[name])} for fit in rest]
    member = model_file.Member(first.state, list(map(float, pos_weight)), first.epoch, first.val_loss, others=others)
    found = [one.logits for one in fitted if one.logits is not None]
    if not found:
        return Outcome(member, first.val_loss, first.val_ap)
    rows, shift = fold.rows("val"), np.log(pos_weight)
    targets, logits = inputs.targets[rows], np.mean(found, axis=0)

    def scored(logits: np.ndarray, member: model_file.Member) -> Outcome:
        val_loss = metrics.mean_loss(logits, targets, pos_weight)
        return Outcome(replace(member, val_loss=val_loss), val_loss, metrics.macro(metrics.average_precision(targets, logits)))

    together = scored(logits, member)
    if rest:
        print(f"  {len(fitted)} networks together: val loss {together.val_loss:.4f}  val AP {together.val_ap:.3f}", flush=True)
    if choice == 0:
        return together
    tuned, untuned = logits - shift, regression.log_odds(features[rows])
    share = blending.chosen_share(tuned, untuned, targets) if choice == "auto" else choice
    alone, both = (blending.scaled_loss(blending.mixed(tuned, untuned, part), targets) for part in (0.0, share or 0.5))
    print(f"  {blending.told(share, alone, both)}", flush=True)
    if not share:
        return together
    weights, bias = regression.weights, regression.bias + shift
    linear = {"head.1.weight": torch.from_numpy(weights).float(), "head.1.bias": torch.from_numpy(bias).float()}
    return scored(blending.mixed(tuned, untuned, share) + shift, replace(member, share=share, untouched=before | linear))
