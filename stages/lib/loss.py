"""Masked, weighted binary cross-entropy over known labels; the loss of a constant.

Targets are 1, 0 or NaN (unknown), shape (n_images, n_attributes); an unknown cell adds nothing to the sum and
nothing to the count. With weight w of a positive the loss of a cell is w*y*log(1+e^-x) + (1-y)*log(1+e^x).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional


def masked_sum(
    logits: torch.Tensor, targets: torch.Tensor, pos_weight: torch.Tensor, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the loss over known cells, and their number; divide once over all that is summed.

    With `weights` (of mixed pictures, shape of `targets`) both are weighted sums; `targets` may then be any number from 0 to 1.
    """
    known = ~torch.isnan(targets)
    # NaN times 0 is NaN, in gradients too: unknown cells get a harmless target before the mask takes them out.
    filled = torch.where(known, targets, torch.zeros_like(targets))
    cells = functional.binary_cross_entropy_with_logits(logits, filled, pos_weight=pos_weight, reduction="none")
    counted = known if weights is None else known * weights
    return (cells * counted).sum(), counted.sum()


def cells(logits: np.ndarray, targets: np.ndarray, pos_weight: np.ndarray) -> np.ndarray:
    """The loss of every cell in NumPy, NaN where the label is unknown; shape of `targets`."""
    softplus = np.logaddexp(0, logits)
    return pos_weight * targets * (softplus - logits) + (1 - targets) * softplus


def base_rates(targets: np.ndarray) -> np.ndarray:
    """Share of positives among the known cells of each attribute, shape (n_attributes,); NaN where none is known."""
    known = (~np.isnan(targets)).sum(axis=0)
    return np.divide(np.nansum(targets, axis=0), known, out=np.full(targets.shape[1], np.nan), where=known > 0)


def constant_of(stats: Mapping[str, Mapping[str, float]], attributes: Sequence[str]) -> np.ndarray:
    """`best_constant` by the training rows of one model of stats.json, shape (n_attributes,).

    An attribute that training rows know nothing of gets a rate of 0.5.
    """
    rate = np.array([stats["base_rate"].get(name, 0.5) for name in attributes])
    return best_constant(rate, np.array([stats["pos_weight"][name] for name in attributes]))


def best_constant(base_rate: np.ndarray, pos_weight: np.ndarray) -> np.ndarray:
    """The logit that minimises the weighted loss if every image gets the same, per attribute.

    From d/dx of w*p*log(1+e^-x) + (1-p)*log(1+e^x) = 0 follows e^x = w*p/(1-p). Rates of 0 and 1 are moved
    in by 1e-6, so that a label that was never seen costs much and not infinitely much.
    """
    rate = np.clip(base_rate, 1e-6, 1 - 1e-6)
    return np.log(pos_weight) + np.log(rate) - np.log1p(-rate)
