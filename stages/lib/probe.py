"""Logistic regression on the frozen backbone's features: what the labels give before anything is fine-tuned.

Pictures go once through the pretrained network, without augmentation; each attribute then gets a regression of
its own on the rows where it is known. It takes seconds, it is hard to beat on a few hundred images, and where it
sees nothing, fine-tuning rarely does.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from stages.lib import inference, loss
from stages.lib.pixels import Pictures
from stages.lib.preprocessing import Preprocessing

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # C of scikit-learn on standardised features; the best is chosen by log loss
UNSEEN = 0.5  # rate of an attribute without both classes among the fitted rows


def features(
    backbone: torch.nn.Module, pictures: Pictures, rows: np.ndarray, how: Preprocessing, device: torch.device
) -> np.ndarray:
    """Pooled output of the backbone as it is, standing still: shape (n_rows, n_features), float32."""
    training = [module.training for module in backbone.modules()]  # frozen parts stand still, others do not
    found = inference.logits(backbone.to(device), pictures, rows, how, device).astype(np.float32)
    for module, flag in zip(backbone.modules(), training, strict=True):
        module.training = flag
    return found


def fitted(train: np.ndarray, targets: np.ndarray, asked: np.ndarray, strength: float) -> np.ndarray:
    """Log-odds of the rows `asked`, shape (n_asked, n_attributes), by regressions on the rows `train`.

    `targets` (n_train, n_attributes) holds NaN where unknown. An attribute without both classes gets its
    base rate everywhere.
    """
    scale = StandardScaler().fit(train)
    train, asked = scale.transform(train), scale.transform(asked)
    found = np.empty((len(asked), targets.shape[1]))
    for column, target in enumerate(targets.T):
        known = ~np.isnan(target)
        truth = target[known]
        if not 0 < truth.sum() < len(truth):
            rate = truth.mean() if len(truth) else UNSEEN
            found[:, column] = loss.best_constant(np.array(rate), np.array(1.0))
            continue
        regression = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(train[known], truth)
        found[:, column] = regression.decision_function(asked)
    return found


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
            found[own] = fitted(values[~own], targets[~own], values[own], strength)
        by_strength.append(found)
    return by_strength[best_of([(found, targets) for found in by_strength])]


def tested(values: np.ndarray, targets: np.ndarray, role: np.ndarray) -> np.ndarray:
    """Log-odds of the rows whose `role` is 'test', fitted on those of 'train', strength chosen on those of 'val'."""
    train, val, test = (role == name for name in ("train", "val", "test"))
    choices = [(fitted(values[train], targets[train], values[val], strength), targets[val]) for strength in STRENGTHS]
    return fitted(values[train], targets[train], values[test], STRENGTHS[best_of(choices)])


def best_of(choices: list[tuple[np.ndarray, np.ndarray]]) -> int:
    """Index of the (log-odds, targets) with the lowest log loss over known cells."""
    losses = [np.nansum(loss.cells(log_odds, targets, np.array(1.0))) for log_odds, targets in choices]  # of the same cells
    return int(np.argmin(losses))
