"""An exported model at work with ONNX Runtime, without PyTorch; what export and prediction agree on.

The graph maps `images`, float32 (n, 3, resolution, resolution) after preprocessing, to `log_odds` (n, n_attributes), the
mean over the members, already corrected for pos_weight. The file's metadata holds as JSON:

    preprocessing   the fields of preprocessing.Preprocessing: how a file becomes such an input
    attributes      their names, in the order of the columns
    decision        per attribute temperature and threshold: probability = sigmoid(log_odds / temperature)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stages.lib import decisions
from stages.lib.errors import UserError, first_line
from stages.lib.faults import attribute_names
from stages.lib.preprocessing import Preprocessing, parsed, seen

FORMAT = "image-attribute-tagger onnx 1"
INPUT, OUTPUT = "images", "log_odds"


class Portable:
    """A model.onnx; `mirrored` is test-time augmentation, as in `engine.Engine`."""

    n_members = 1

    def __init__(self, path: Path, device: str, mirrored: bool) -> None:
        self.path, self.mirrored = path, mirrored
        runtime = _runtime()
        if not path.is_file():
            raise UserError(f"model {path} is missing; write it with: python -m stages.export --out {path}")
        available = runtime.get_available_providers()
        if device == "cuda" and "CUDAExecutionProvider" not in available:
            raise UserError("train.device: cuda is asked for, but this ONNX Runtime has no CUDA; use auto or cpu")
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        try:
            options = runtime.SessionOptions()
            options.log_severity_level = 3  # its warnings are about its own optimisations
            self._session = runtime.InferenceSession(str(path), options, providers=wanted[device == "cpu" and len(wanted) > 1 :])
        except Exception as error:  # its errors share no base class but this
            raise UserError(f"model {path} is damaged or no ONNX model ({first_line(error)}); run stages.export again") from None
        self.precision = f"ONNX Runtime {self._session.get_providers()[0].removesuffix('ExecutionProvider')}"
        self.metadata = self._session.get_modelmeta().custom_metadata_map
        if self.metadata.get("format") != FORMAT:
            raise UserError(f"model {path} was not written by this project's export ('{FORMAT}'); run stages.export")
        try:
            self.attributes: list[str] = attribute_names(json.loads(self.metadata["attributes"]))
            self.preprocessing = parsed(json.loads(self.metadata["preprocessing"]))
            self._decision: dict[str, Any] = json.loads(self.metadata["decision"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"model {path} lacks a part of its metadata ({first_line(error)}); run stages.export again") from None

    def decision(self) -> tuple[decisions.Decision, np.ndarray]:
        """The decision, and a shift of zero per attribute: the graph has subtracted log(pos_weight)."""
        return decisions.parsed(self.path, self._decision, self.attributes, self.n_members)

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures (n, side, side, 3) uint8 -> log-odds (1, n, n_attributes), float64."""
        batch = to_input(pictures, self.preprocessing)
        found = self._session.run([OUTPUT], {INPUT: batch})[0]
        if self.mirrored:
            found = (found + self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(batch[..., ::-1])})[0]) / 2
        return found.astype(np.float64)[None]


def to_input(pictures: np.ndarray, how: Preprocessing) -> np.ndarray:
    """`preprocessing.to_input` in NumPy: the same numbers within float32 rounding."""
    batch = seen(pictures, how).astype(np.float32)
    kept, size = batch.shape[1], how.resolution
    if kept != size:
        weights = resizing(kept, size)
        rows = weights @ batch.reshape(len(batch), kept, -1)  # (n, size, kept * 3)
        columns = weights @ rows.reshape(len(batch) * size, kept, 3)
        batch = columns.reshape(len(batch), size, size, 3)
    mean, std = (np.array(values, dtype=np.float32) for values in (how.mean, how.std))
    return np.ascontiguousarray(((batch / 255 - mean) / std).transpose(0, 3, 1, 2))


def resizing(old: int, new: int) -> np.ndarray:
    """Bilinear resizing with anti-aliasing, from `old` to `new` pixels, as a matrix (new, old).

    What PyTorch's interpolate(antialias=True, align_corners=False) does: a triangle around the place in the
    old row that a new pixel's middle has, as wide as a new pixel where that is wider than an old one, divided by its sum.
    """
    scale = old / new
    width = max(scale, 1.0)
    middle = (np.arange(new) + 0.5) * scale
    distance = np.abs(np.arange(old) + 0.5 - middle[:, None])
    weights = np.maximum(0, 1 - distance / width)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("a model.onnx needs the package onnxruntime: pip install onnxruntime; or use models/model.pth") from None
    return onnxruntime
