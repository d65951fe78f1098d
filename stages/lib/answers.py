"""What is said of single images: lines for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.lib.faults import shown


def lines(attributes: Sequence[str], probabilities: np.ndarray, thresholds: np.ndarray) -> str:
    """A line per attribute, and the list of those present; arrays have shape (n_attributes,)."""
    text, present = [], []
    for name, probability, threshold in zip(attributes, probabilities, thresholds, strict=True):
        on = probability >= threshold
        present += [shown(name)] if on else []
        word = "present" if on else "absent"
        text.append(f"{shown(name):<20} {word:<8} {probability:.3f}  (threshold {threshold:.2f})")
    return "\n".join([*text, f"present: {', '.join(present) or 'none'}"])


def as_json(
    image: str, model: str, attributes: Sequence[str], probabilities: np.ndarray, thresholds: np.ndarray
) -> dict[str, Any]:
    """The same as an object; probabilities have six decimals, as in tables."""
    each = {
        name: {
            "probability": round(float(probability), 6),
            "threshold": float(threshold),
            "present": bool(probability >= threshold),
        }
        for name, probability, threshold in zip(attributes, probabilities, thresholds, strict=True)
    }
    present = [name for name, answer in each.items() if answer["present"]]
    return {"image": shown(image, 4096), "model": model, "attributes": each, "present": present}
