"""Fine-tuned networks beside a regression on what the backbone saw before: the mean of their logits, by shares.

On a few hundred images fine-tuning learns what pretrained features lack, and forgets some of what they had; the two err in
different ways. How much the regression may say is chosen on validation rows, which neither was fitted on. Several networks
of one split (`train.networks`), of other heads, orders and augmentations, err in different ways as well; all have the same say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from stages.lib import loss

SHARES = (0.0, 0.25, 0.5, 0.75)  # of the regression
TEMPERATURES = np.exp(np.linspace(-2, 2, 81))
# Least gain, relative to the networks' own loss: the trained stages then run once more in prediction, and a smaller gain on a few
# hundred labels is chance as often as not.
WORTH = 0.02


class Blended(nn.Module):
    """Images (n, 3, height, width) -> logits (n, n_attributes): (1 - share) * mean of tuned + share * untouched.

    All take what `trunk` makes of the images; without a share there is no `untouched`.
    """

    def __init__(
        self, tuned: Sequence[nn.Module], untouched: nn.Module | None, share: float, trunk: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.trunk = trunk or nn.Identity()
        self.tuned, self.untouched, self.share = nn.ModuleList(tuned), untouched, share

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = self.trunk(images)
        logits = torch.stack([network(seen).float() for network in self.tuned]).mean(dim=0)  # on a GPU they may be bf16
        return logits if self.untouched is None else (1 - self.share) * logits + self.share * self.untouched(seen)

    def parts(self) -> list[nn.Module]:
        """The tuned networks, then the untouched one where there is one."""
        return [*self.tuned, *([] if self.untouched is None else [self.untouched])]


def chosen_share(tuned: np.ndarray, regression: np.ndarray, targets: np.ndarray) -> float:
    """The one of SHARES with the lowest `scaled_loss`; 0 where it gains less than WORTH, or nothing is known.

    Log-odds, corrected for pos_weight, and targets with NaN for unknown: all (n, n_attributes).
    """
    if np.isnan(targets).all():
        return 0.0
    losses = np.array([scaled_loss(mixed(tuned, regression, share), targets) for share in SHARES])
    best = int(losses.argmin())
    return SHARES[best] if losses[best] <= (1 - WORTH) * losses[0] else 0.0


def mixed(tuned: np.ndarray, regression: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * tuned + share * regression


def scaled_loss(log_odds: np.ndarray, targets: np.ndarray) -> float:
    """Mean log loss over known cells at the temperature that suits best.

    A mean of two is less sure of itself than either, which alone lowers the loss of an overconfident network; evaluate
    finds a temperature anyway.
    """
    return min(float(np.nanmean(loss.cells(log_odds / t, targets, np.array(1.0)))) for t in TEMPERATURES)


def told(share: float, alone: float, both: float) -> str:
    """`alone` and `both` are `scaled_loss` on validation rows: of the networks, and of both, half and half for share 0."""
    if not share:
        return f"no share for the regression on frozen features: val log loss {alone:.4f} without it, {both:.4f} with half"
    return f"share of the regression on frozen features {share:g}: val log loss {both:.4f}, without it {alone:.4f}"
