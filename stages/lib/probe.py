"""Logistic regression on the frozen backbone's features: what the labels give before anything is fine-tuned.

Pictures go once through the pretrained network, without augmentation; each attribute then gets a regression of
its own on the rows where it is known. It takes seconds, it is hard to beat on a few hundred images, and where it
sees nothing, fine-tuning rarely does.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from stages.lib import fusing, inference, loss
from stages.lib.pixels import Pictures
from stages.lib.preprocessing import Preprocessing

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # C of scikit-learn on standardised features; the best is chosen by log loss
UNSEEN = 0.5  # rate of an attribute without both classes among the fitted rows


def features(
    backbone: torch.nn.Module, pictures: Pictures, rows: np.ndarray, how: Preprocessing, device: torch.device
) -> np.ndarray:
    """Pooled output of the backbone as it is, standing still: shape (n_rows, n_features), float32."""
    standing = fusing.at_work(deepcopy(backbone).eval(), how.resolution, device)
    return inference.logits(standing, pictures, rows, how, device).astype(np.float32)


@dataclass(frozen=True)
class Regression:
    """`weights` (n_attributes, n_features) and `bias` (n_attributes,) that give log-odds of unscaled features."""

    weights: np.ndarray
    bias: np.ndarray

    def log_odds(self, values: np.ndarray) -> np.ndarray:
        """Of features (n, n_features), shape (n, n_attributes)."""
        return values.astype(np.float64) @ self.weights.T + self.bias


def fitted(values: np.ndarray, targets: np.ndarray, strength: float) -> Regression:
    """`values` (n, n_features), `targets` (n, n_attributes) with NaN where unknown.

    An attribute without both classes gets weights of 0 and the log-odds of its base rate.
    """
    # scikit-learn takes a second to import, and who only asks a regression that is there does without.
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(values)
    scaled = scale.transform(values)
    rates = np.nan_to_num(loss.base_rates(targets), nan=UNSEEN)
    weights, bias = np.zeros((targets.shape[1], values.shape[1])), loss.best_constant(rates, np.array(1.0))
    for column, target in enumerate(targets.T):
        known = ~np.isnan(target)
        if 0 < rates[column] < 1 and known.any():
            found = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(scaled[known], target[known])
            weights[column] = found.coef_[0] / scale.scale_
            bias[column] = found.intercept_[0] - weights[column] @ scale.mean_
    return Regression(weights, bias)


def cross_validated(values: np.ndarray, targets: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Log-odds of every row by regressions that have not seen its fold, shape of `targets`.

    One strength for all attributes and folds, of the best log loss: the choice is among four, over all cells, and
    so flatters the result by next to nothing.
    """
    by_strength = []
    for strength in STRENGTHS:
        found = np.empty(targets.shape)
        for fold in np.unique(fold_of):
            own = fold_of == fold
            found[own] = fitted(values[~own], targets[~own], strength).log_odds(values[own])
        by_strength.append(found)
    return by_strength[best_of([(found, targets) for found in by_strength])]


def chosen(values: np.ndarray, targets: np.ndarray, role: np.ndarray) -> Regression:
    """The one that is `fitted` on the rows whose `role` is 'train', of the strength that is best on those of 'val'."""
    train, val = (role == name for name in ("train", "val"))
    choices = [fitted(values[train], targets[train], strength) for strength in STRENGTHS]
    return choices[best_of([(choice.log_odds(values[val]), targets[val]) for choice in choices])]


def best_of(choices: list[tuple[np.ndarray, np.ndarray]]) -> int:
    """Index of the (log-odds, targets) with the lowest log loss over known cells."""
    losses = [np.nansum(loss.cells(log_odds, targets, np.array(1.0))) for log_odds, targets in choices]  # of the same cells
    return int(np.argmin(losses))
