"""One fit: epochs of AdamW under a warm-up and cosine schedule, early stopping, best weights kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn

from stages.lib import backbones, inference, loss
from stages.lib.checkpoint import NOTHING_KEPT, Fold, Stateful
from stages.lib.errors import UserError
from stages.lib.mixing import Weighted
from stages.lib.model import Tagger
from stages.lib.team import ALONE, Team


@dataclass(frozen=True)
class Recipe:
    """Numbers of the fit. `lr` is the head's; each level below has `lr_decay` times the one above."""

    lr: float
    lr_decay: float
    weight_decay: float
    warmup: float
    epochs: int
    patience: int
    ema: float = 0.0  # decay per iteration, at most, of averaged weights, which then are what is scored and kept; 0: none
    bf16: bool = False  # on a GPU the forward pass in half the bits; weights, loss and evaluation stay in float32


@dataclass
class Fit:
    """What a fit leaves: the best state, and one row per iteration and per epoch."""

    state: dict[str, torch.Tensor] = field(default_factory=dict)
    epoch: int = 0
    val_loss: float = math.inf
    val_ap: float = math.nan
    iterations: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)

    def goes_on(self, recipe: Recipe) -> bool:
        """Whether another epoch follows: not after the last, and not when the best lies `patience` epochs back."""
        done = len(self.epochs)
        return done < recipe.epochs and done - self.epoch < recipe.patience


Batches = Callable[[int], Iterable[Weighted]]
Evaluation = Callable[[Tagger], dict[str, float]]  # must give "val_loss" and "val_ap"


def parameter_groups(network: Tagger, recipe: Recipe) -> list[dict[str, Any]]:
    """Trained parameters by level, and within it with and without weight decay (biases, norms, scales, embeddings)."""
    exempt = set(getattr(network.backbone, "no_weight_decay", set)())
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        level = network.level(name)
        # Gains and layer scales have one number per channel, whatever their shape: (channels, 1, 1) in some families.
        one_each = parameter.ndim < 2 or parameter.numel() == parameter.shape[0]
        decays = not one_each and name.removeprefix("backbone.") not in exempt
        lr = recipe.lr * recipe.lr_decay ** (len(backbones.LEVELS) - 1 - level)
        new = {"params": [], "lr": lr, "base_lr": lr, "weight_decay": recipe.weight_decay if decays else 0.0}
        groups.setdefault((level, decays), new)["params"].append(parameter)
    return list(groups.values())


def lr_factor(step: int, steps: int, warmup: float) -> float:
    """Share of the base learning rate at iteration `step` of `steps`: a linear rise, then half a cosine to 0."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def fit(
    network: Tagger,
    batches: Batches,
    n_batches: int,
    evaluate: Evaluation,
    pos_weight: np.ndarray,
    recipe: Recipe,
    device: torch.device,
    log: Callable[[dict[str, Any]], None],
    epoch_seed: Callable[[int], int],
    score_start: bool = False,
    checkpoint: Fold = NOTHING_KEPT,
    members: Team = ALONE,
) -> Fit:
    """Train until `recipe.epochs`, or until `recipe.patience` epochs brought no better validation loss.

    `batches(epoch)` yields (what the network takes, targets, weights of the cells), for a team this process's part of them;
    `evaluate` scores the network; `log` gets each epoch's row. With `score_start` the network as it comes competes too, as
    epoch 0. What `checkpoint` holds is carried on with; whatever goes on from epoch to epoch must be in `moving`, or in the
    result.
    Raises UserError for a loss that is not finite, and for a GPU that runs out of memory.
    """
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe), fused=True)
    weight = torch.tensor(pos_weight, dtype=torch.float32, device=device)
    trained = members.joined(network)
    # The decay rises to `ema`: with a constant one the average of a short training would still hold the random head.
    averaged = ModelEmaV3(network, recipe.ema, use_warmup=True) if recipe.ema else None
    moving: dict[str, Stateful] = {"network": network, "optimizer": optimizer}
    if averaged:
        moving["averaged"] = averaged
    result = Fit(**checkpoint.load(moving))
    if score_start and not result.epochs:
        keep_if_better(result, network, 0, evaluate(network))
    while result.goes_on(recipe):
        epoch, started = len(result.epochs) + 1, time.perf_counter()
        torch.manual_seed(epoch_seed(epoch))  # for dropout
        train_loss = train_one_epoch(
            trained, averaged, batches(epoch), n_batches, optimizer, weight, recipe, device, epoch, result, members
        )
        seconds = time.perf_counter() - started  # of training, the evaluation not counted
        scored = averaged.module if averaged else network
        scores = evaluate(scored)
        better = keep_if_better(result, scored, epoch, scores)
        result.epochs.append({"epoch": epoch, "train_loss": train_loss, **scores})
        log({**result.epochs[-1], "seconds": seconds, "better": better})
        checkpoint.save(moving, vars(result), finished=not result.goes_on(recipe))
    return result


def keep_if_better(result: Fit, network: Tagger, epoch: int, scores: dict[str, float]) -> bool:
    """Keep the network's state in `result` if its validation loss is the lowest so far."""
    if not math.isfinite(scores["val_loss"]):
        raise UserError(f"the validation loss of epoch {epoch} is {scores['val_loss']}: no known label, or lr too high")
    if scores["val_loss"] >= result.val_loss:
        return False
    result.state = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    result.epoch, result.val_loss, result.val_ap = epoch, scores["val_loss"], scores["val_ap"]
    return True


def train_one_epoch(
    network: nn.Module,
    averaged: ModelEmaV3 | None,
    batches: Iterable[Weighted],
    n_batches: int,
    optimizer: torch.optim.Optimizer,
    weight: torch.Tensor,
    recipe: Recipe,
    device: torch.device,
    epoch: int,
    result: Fit,
    members: Team = ALONE,
) -> float:
    """One pass; appends to `result.iterations` and returns the mean loss over the epoch's known labels.

    Of a team, each process has its part of every batch, and the numbers are those of the whole batch.
    """
    network.train()
    total = known = 0.0
    for images, targets, cell_weights in batches:
        step = len(result.iterations)
        factor = lr_factor(step, n_batches * recipe.epochs, recipe.warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        try:
            with inference.precision(device, recipe.bf16):
                logits = network(images.to(device)).float()
            own_sum, own_known = loss.masked_sum(logits, targets.to(device), weight, cell_weights.to(device))
            batch_sum, batch_known = members.total(own_sum, own_known)
            # Divided by the whole batch's known labels; times the size, since the team takes the mean of its gradients.
            (own_sum * members.size / batch_known.clamp(min=1)).backward()
            value = batch_sum / batch_known.clamp(min=1)
        except torch.cuda.OutOfMemoryError:
            raise UserError("the GPU is out of memory: lower train.batch_size or train.resolution") from None
        if not torch.isfinite(value):
            raise UserError(f"the training loss became {value.item()} in epoch {epoch}, iteration {step + 1}: lower lr")
        optimizer.step()
        if averaged:
            averaged.update(network, step + 1)
        optimizer.zero_grad(set_to_none=True)
        total, known = total + batch_sum.item(), known + batch_known.item()
        result.iterations.append({"iteration": step + 1, "epoch": epoch, "loss": value.item(), "lr": recipe.lr * factor})
    return total / max(known, 1)


def progress(row: dict[str, Any], n_images: int, epochs: int) -> str:
    """The row of an epoch, as `fit` logs it, on one line."""
    mark = "  best so far" if row["better"] else ""
    speed = n_images / max(row["seconds"], 1e-9)
    scores = f"train loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  val AP {row['val_ap']:.3f}"
    return f"  epoch {row['epoch']:>2}/{epochs}  {scores}  {speed:5.1f} images/s{mark}"
