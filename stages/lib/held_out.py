"""Which network speaks about which rows: every scored row by one that has not learned from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from stages.lib import decisions, inference, loss, model_file, pixels, probe, splits
from stages.lib.evidence import Outcome


@dataclass(frozen=True)
class Inputs:
    """The model and the rows: `targets` (n, n_attributes) with NaN for unknown, `parts` and `groups` (n,), `store` the pixels.

    `features` (n, n_features) are those of the frozen backbone, `early` (n, n_attributes) the log-odds of a regression on
    them, cross-validated; NaN for test rows. `regressions` has one per fold, fitted on the rows that its network learned from.
    """

    saved: model_file.Saved
    store: pixels.Store
    names: list[str]
    targets: np.ndarray
    groups: np.ndarray
    parts: np.ndarray
    stats: dict[str, Any]
    features: np.ndarray
    early: np.ndarray
    regressions: list[probe.Regression]


@dataclass(frozen=True)
class Scored:
    """Rows with the outputs of models that have not learned from them; arrays are (n_rows, n_attributes).

    `member` (n_rows,) is the model's number; `log_odds` are `logits` corrected for pos_weight; `losses` and
    `constant_losses` are weighted as in training, NaN where unknown; `constant` is the log-odds of the base rate.
    """

    rows: np.ndarray
    member: np.ndarray
    logits: np.ndarray
    log_odds: np.ndarray
    losses: np.ndarray
    constant_losses: np.ndarray
    constant: np.ndarray


def score(inputs: Inputs, network: nn.Module, folds: int, fold: int, role: str, device: torch.device) -> Scored:
    """Member `fold`, as `network`, on its rows of `role`."""
    rows = np.flatnonzero(splits.roles(inputs.parts, folds, fold) == role)
    logits = inference.logits(network, inputs.store, rows, inputs.saved.preprocessing, device)
    shift = inputs.saved.log_pos_weight(fold)
    weight, targets = np.exp(shift), inputs.targets[rows]
    constant = np.broadcast_to(loss.constant_of(inputs.stats["models"][fold], inputs.saved.attributes), logits.shape)
    losses, constant_losses = loss.cells(logits, targets, weight), loss.cells(constant, targets, weight)
    member = np.full(len(rows), fold)
    base = decisions.corrected(constant, shift)
    return Scored(rows, member, logits, decisions.corrected(logits, shift), losses, constant_losses, base)


def joined(parts: list[Scored]) -> Scored:
    """The rows of several, in the order of the table."""
    order = np.argsort(np.concatenate([part.rows for part in parts]))
    names = Scored.__dataclass_fields__
    return Scored(*(np.concatenate([getattr(part, name) for part in parts])[order] for name in names))


def outcome_of(inputs: Inputs, tested: Scored, chosen: decisions.Decision, goal: decisions.Goal, folds: int) -> Outcome:
    """The tested rows, calibrated and decided by what was tuned on other rows.

    With folds, `chosen` was tuned on these very rows; each fold is then decided by what the other folds say.
    """
    targets, groups = inputs.targets[tested.rows], inputs.groups[tested.rows]
    log_odds, decided = chosen.calibrated(tested.log_odds), chosen.decided(tested.log_odds)
    for member in range(folds if folds > 1 else 0):
        own = tested.member == member
        by_others = decisions.tune(targets[~own], tested.log_odds[~own], groups[~own], goal)
        log_odds[own], decided[own] = by_others.calibrated(tested.log_odds[own]), by_others.decided(tested.log_odds[own])
    return Outcome(targets, log_odds, decided, tested.constant, groups)
