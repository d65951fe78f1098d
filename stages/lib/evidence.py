"""How sure the scores are: an interval beside each, a test of "no signal" per attribute, and a verdict in words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from stages.lib import loss, resampling, verdicts
from stages.lib.chance import seed_for

RESAMPLES = 2000
PERMUTATIONS = 2000  # at least; enough that one p of many attributes can still be small once adjusted
LOWEST = {"ap": 0.0, "ap_gain": -1.0, "roc_auc": 0.0, "f1": 0.0, "skill": -np.inf}  # what each score can't fall below


@dataclass(frozen=True)
class Outcome:
    """Rows that were scored by a model that has not seen them; arrays are (n_rows, n_attributes) unless said otherwise.

    `targets` has NaN for unknown; `constant` (n_rows, n_attributes) is the log-odds of the base rate of the rows that
    the model has learned from; `groups` (n_rows,) are equal for near-duplicates. What was drawn once is kept in `drawn`.
    """

    targets: np.ndarray
    log_odds: np.ndarray
    decided: np.ndarray
    constant: np.ndarray
    groups: np.ndarray
    drawn: dict[int, dict[str, np.ndarray]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def losses(self) -> np.ndarray:
        """Log loss of every known cell, without weights: it asks for probabilities, not for decisions."""
        return loss.cells(self.log_odds, self.targets, np.array(1.0))

    @property
    def constant_losses(self) -> np.ndarray:
        return loss.cells(self.constant, self.targets, np.array(1.0))

    def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """`resampling.bootstrap` of these rows, drawn as `weights` (n_resamples, n_rows) say."""
        given = (self.targets, self.log_odds, self.decided.astype(float), self.losses, self.constant_losses)
        return resampling.bootstrap(*given, weights)

    def bootstrap(self, seed: int) -> dict[str, np.ndarray]:
        """All scores in RESAMPLES resamples; two outcomes with the same groups and seed are drawn alike."""
        if seed not in self.drawn:
            self.drawn[seed] = self.resampled(resampling.draws(self.groups, RESAMPLES, seed_for(seed, "bootstrap")))
        return self.drawn[seed]


def assess(attributes: list[str], found: Outcome, seed: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """A table with a row per attribute, and the macro scores; both have NaN where a score is undefined.

    Columns: `ap`, `ap_gain` (AP above the share of positives), `roc_auc`, `f1`, `skill` (share of the constant's log loss
    that is gone), each with `_low` and `_high` of its 95 % interval; `p` (permutation test of AP, adjusted by Holm for the
    attributes that could be tested), `verdict`, `positives`, `negatives`. The macro skill is over all known cells.
    """
    drawn = found.bootstrap(seed)
    points = found.resampled(np.ones((1, len(found.targets)), dtype=np.uint8))
    table = pd.DataFrame({"attribute": attributes})
    table["positives"], table["negatives"] = (found.targets == 1).sum(axis=0), (found.targets == 0).sum(axis=0)
    # Copies of one picture are one example: what they show together counts once.
    of_class = np.array([[independent(found, column, label) for label in (1, 0)] for column in range(len(attributes))])
    few = of_class.min(axis=1, initial=len(found.groups)) < verdicts.FEWEST
    macro: dict[str, float] = {}
    for name, lowest in LOWEST.items():
        point, whole = points[name][0], points[f"{name}_macro"]
        # A skill without both classes compares with a constant that is all but sure: its size means nothing.
        table[name] = np.where(of_class.min(axis=1, initial=1) < 1, np.nan, point) if name == "skill" else point
        ends = [resampling.interval(drawn[name][:, c], point=point[c], floor=lowest) for c in range(len(attributes))]
        for side in ("low", "high"):
            # A handful of examples hardly differs from resample to resample, and would look certain.
            table[f"{name}_{side}"] = np.where(few, np.nan, [getattr(end, side) for end in ends])
        over_all = resampling.interval(drawn[f"{name}_macro"], point=whole[0], floor=lowest)
        macro |= {name: float(whole[0]), f"{name}_low": over_all.low, f"{name}_high": over_all.high}
    table["p"] = p_values(found, seed)
    tested = int(table["p"].notna().sum())
    table["verdict"] = [
        verdicts.verdict(p, low, positives, negatives, tested)
        for p, low, (positives, negatives) in zip(table["p"], table["roc_auc_low"], of_class.tolist(), strict=True)
    ]
    return table, macro


def independent(found: Outcome, column: int, label: int) -> int:
    """Groups of near-duplicates that hold an image with this label."""
    return len(np.unique(found.groups[found.targets[:, column] == label]))


def p_values(found: Outcome, seed: int) -> np.ndarray:
    """Adjusted p of "no signal" per attribute, shape (n_attributes,); NaN where one class only is known."""
    n_attributes = found.targets.shape[1]
    n = max(PERMUTATIONS, int(2 * n_attributes / verdicts.SURE))
    each = []
    for column in range(n_attributes):
        known = ~np.isnan(found.targets[:, column])
        truth, score, groups = found.targets[known, column], found.log_odds[known, column], found.groups[known]
        each.append(resampling.permutation_p(truth, score, groups, n, seed_for(seed, "permutation", column)))
    return resampling.holm(np.array(each))
