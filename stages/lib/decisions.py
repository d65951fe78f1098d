"""From logits to probabilities and decisions: prior correction, temperature, thresholds; decision.json, which holds them.

What only `tune` needs is imported there: it leads to PyTorch, which prediction with an ONNX model does without.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from stages.lib import files
from stages.lib.errors import UserError


def corrected(logits: np.ndarray, log_pos_weight: np.ndarray) -> np.ndarray:
    """Logits of a network trained with pos_weight w -> log-odds: logit - log(w), same shape.

    Weighting positives by w moves the optimum of the loss from log(p / (1 - p)) by log(w).
    """
    return logits - log_pos_weight


def probabilities(log_odds: np.ndarray) -> np.ndarray:
    """Sigmoid, without overflow."""
    return expit(log_odds)


@dataclass(frozen=True)
class Goal:
    """What a threshold is for: `name` is one of params.GOALS, `minimum` the precision or recall that is asked for."""

    name: str
    minimum: float
    fixed: float  # the threshold of the goal "fixed", and of attributes without both classes known


@dataclass(frozen=True)
class Decision:
    """How each attribute is decided; arrays have shape (n_attributes,).

    A probability is the sigmoid of log-odds / `temperature`; at `threshold` and above it means present. `reached`
    tells whether the goal was reached on the rows that the threshold was tuned on.
    """

    temperature: np.ndarray
    threshold: np.ndarray
    reached: np.ndarray

    def calibrated(self, log_odds: np.ndarray) -> np.ndarray:
        """Log-odds (n, n_attributes), corrected for pos_weight, on the scale of probabilities that mean what they say."""
        return log_odds / self.temperature

    def decided(self, log_odds: np.ndarray) -> np.ndarray:
        """Decisions (n, n_attributes), bool, from log-odds that are corrected but not yet calibrated."""
        return probabilities(self.calibrated(log_odds)) >= self.threshold


def tune(targets: np.ndarray, log_odds: np.ndarray, groups: np.ndarray, goal: Goal) -> Decision:
    """Temperatures and thresholds from rows that must not be scored with them; `targets` has NaN for unknown."""
    from stages.lib import calibration, goals

    temperature = calibration.temperatures(targets, log_odds, groups)
    scores = probabilities(log_odds / temperature)
    return Decision(temperature, *goals.thresholds(targets, scores, goal.name, goal.minimum, goal.fixed))


def write(path: Path, model: str, attributes: Sequence[str], log_pos_weight: np.ndarray, chosen: Decision, goal: Goal) -> None:
    """Write decision.json: all that lies between a network's logits and its decisions.

    `model` is the fingerprint of the model file that it belongs to, `log_pos_weight` (n_members, n_attributes) what
    each member's logits are shifted by.
    """
    each = {
        name: {
            "log_pos_weight": [float(value) for value in log_pos_weight[:, column]],
            "temperature": float(chosen.temperature[column]),
            "threshold": float(chosen.threshold[column]),
            "goal_reached": bool(chosen.reached[column]),
        }
        for column, name in enumerate(attributes)
    }
    asked: dict[str, Any] = {"name": goal.name}
    if goal.name in ("precision", "recall"):
        asked["minimum"] = goal.minimum
    files.write_json(path, {"model": model, "goal": asked, "attributes": each}, exact=True)


def read(path: Path, model: str, attributes: Sequence[str], n_members: int) -> tuple[Decision, np.ndarray]:
    """The decision and log_pos_weight (n_members, n_attributes), in the order of `attributes`.

    Raises UserError where the file belongs to another model, or holds what is no number.
    """
    content: dict[str, Any] = files.read_json(path, "evaluate")
    if content.get("model") != model:
        raise UserError(f"{path} belongs to another model file; run 'dvc repro evaluate'")
    return parsed(path, content, attributes, n_members)


def parsed(path: Path, content: dict[str, Any], attributes: Sequence[str], n_members: int) -> tuple[Decision, np.ndarray]:
    """As `read`, from content that is already there; `path` is for the error message."""
    found = content.get("attributes")
    if not isinstance(found, dict) or set(found) != set(attributes) or not all(isinstance(v, dict) for v in found.values()):
        raise UserError(f"{path} does not name the model's attributes; run 'dvc repro --force evaluate'")
    threshold = np.array([_number(path, name, "threshold", found[name].get("threshold")) for name in attributes])
    temperature = np.array([_number(path, name, "temperature", found[name].get("temperature"), above=0) for name in attributes])
    shifts = np.empty((n_members, len(attributes)))
    for column, name in enumerate(attributes):
        given = found[name].get("log_pos_weight")
        if not isinstance(given, list) or len(given) != n_members:
            raise UserError(f"{path}: log_pos_weight of '{name}' must be a list of {n_members}; run 'dvc repro --force evaluate'")
        shifts[:, column] = [_number(path, name, "log_pos_weight", value) for value in given]
    reached = np.array([found[name].get("goal_reached") is True for name in attributes])
    return Decision(temperature, threshold, reached), shifts


def _number(path: Path, name: str, key: str, value: Any, above: float = -math.inf) -> float:
    # A whole number of hundreds of digits is no float, and fails the comparison without being turned into one.
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise UserError(f"{path}: the {key} of '{name}' is {value!r}, not a number; run 'dvc repro --force evaluate'")
    if value <= above:
        raise UserError(f"{path}: the {key} of '{name}' is {value!r}, not above {above}; run 'dvc repro --force evaluate'")
    return float(value)
