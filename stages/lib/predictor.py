"""A model and its decision, ready to answer: the same for model.pth, with PyTorch, and for model.onnx, without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from stages.lib import decisions, files, params
from stages.lib.errors import UserError
from stages.lib.faults import shown
from stages.lib.preprocessing import Preprocessing

SHORT = 16  # hex digits of a fingerprint in tables: enough to tell models apart, and to look for the whole one
Threshold = tuple[str | None, float]  # of one attribute, or of all


class Backend(Protocol):
    """What runs the networks: `engine.Engine` or `portable.Portable`."""

    attributes: list[str]
    preprocessing: Preprocessing
    n_members: int
    batch_size: int  # images that are best taken together on this device
    lanes: int  # calls of `logits` at once that make use of it; 0 where it was built for one at a time
    precision: str  # what its numbers depend on besides the model: library, device, bits

    def logits(self, pictures: np.ndarray) -> np.ndarray: ...


class Predictor:
    """`probabilities` are the mean of the members' log-odds, corrected for pos_weight and calibrated."""

    def __init__(
        self, model: Path, decision: Path, overrides: Sequence[Threshold], settings: params.Chosen, lanes: int = 0
    ) -> None:
        device, tta = settings.train.device, settings.predict.tta
        self.backend: Backend
        if model.suffix.lower() == ".onnx":
            from stages.lib import portable

            exported = portable.Portable(model, device, tta, lanes)
            self.backend = exported
            self.fingerprint = files.fingerprint(model)
            self.decision, self.log_pos_weight = exported.decision()
        else:
            from stages.lib import engine  # seconds, for PyTorch and timm: only where they are needed

            self.backend = engine.Engine(model, device, settings.predict.bf16, tta, lanes)
            self.fingerprint = files.fingerprint(model)
            known = self.backend.attributes, self.backend.n_members
            self.decision, self.log_pos_weight = decisions.read(decision, self.fingerprint, *known)
        self.attributes, self.preprocessing = self.backend.attributes, self.backend.preprocessing
        self.thresholds = _overridden(self.decision.threshold, self.attributes, overrides)

    @property
    def short(self) -> str:
        return self.fingerprint[:SHORT]

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures (n, side, side, 3) uint8 -> probabilities (n, n_attributes)."""
        log_odds = decisions.corrected(self.backend.logits(pictures), self.log_pos_weight[:, None])
        return decisions.probabilities(self.decision.calibrated(log_odds.mean(axis=0)))

    def numbers(self) -> dict[str, list[float]]:
        """Everything between logits and decisions, for the record of a run."""
        return {
            "log_pos_weight": self.log_pos_weight.tolist(),
            "temperature": self.decision.temperature.tolist(),
            "threshold": self.thresholds.tolist(),
        }


def _overridden(threshold: np.ndarray, attributes: Sequence[str], overrides: Sequence[Threshold]) -> np.ndarray:
    """Thresholds with those of the command line in their place; one for a named attribute beats one for all."""
    found = threshold.copy()
    for name, value in sorted(overrides, key=lambda override: override[0] is not None):
        if name is None:
            found[:] = value
        elif name in attributes:
            found[list(attributes).index(name)] = value
        else:
            raise UserError(f"--threshold: the model has no attribute '{shown(name)}'; it has {', '.join(attributes)}")
    return found
