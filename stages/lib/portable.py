"""An exported model at work with ONNX Runtime, without PyTorch; what export and prediction agree on.

The graph maps `images`, float32 (n, 3, resolution, resolution) after preprocessing, to `log_odds` (n, n_attributes), the
mean over the members, already corrected for pos_weight. The file's metadata holds as JSON:

    preprocessing   the fields of preprocessing.Preprocessing: how a file becomes such an input
    attributes      their names, in the order of the columns
    decision        per attribute temperature and threshold: probability = sigmoid(log_odds / temperature)
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from stages.lib import decisions
from stages.lib.errors import UserError, first_line
from stages.lib.faults import attribute_names
from stages.lib.preprocessing import Preprocessing, parsed, scale_and_shift, seen

FORMAT = "image-attribute-tagger onnx 1"
INPUT, OUTPUT = "images", "log_odds"
# Images that go through a network together. On a CPU each core takes a batch of its own, and small ones stay in its cache.
BATCH_ON_CPU, BATCH_ON_GPU = 8, 64


class Portable:
    """A model.onnx; `mirrored` (test-time augmentation) and `lanes` as in `engine.Engine`."""

    n_members = 1

    def __init__(self, path: Path, device: str, mirrored: bool, lanes: int = 0) -> None:
        self.path, self.mirrored = path, mirrored
        runtime = _runtime()
        if not path.is_file():
            raise UserError(f"model {path} is missing; write it with: python -m stages.export --out {path}")
        available = runtime.get_available_providers()
        if device == "cuda" and "CUDAExecutionProvider" not in available:
            raise UserError("train.device: cuda is asked for, but this ONNX Runtime has no CUDA; use auto or cpu")
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        wanted = wanted[device == "cpu" and len(wanted) > 1 :]
        on_cpu = wanted[0] == "CPUExecutionProvider"
        self.lanes = lanes if on_cpu else 1
        self.batch_size = BATCH_ON_CPU if on_cpu else BATCH_ON_GPU
        try:
            options = runtime.SessionOptions()
            options.log_severity_level = 3  # its warnings are about its own optimisations
            if lanes and on_cpu:
                options.intra_op_num_threads = 1
            self._session = runtime.InferenceSession(str(path), options, providers=wanted)
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
    planes = np.ascontiguousarray(seen(pictures, how).transpose(3, 0, 1, 2))  # (3, n, kept, kept)
    scale, shift = scale_and_shift(how)
    found = np.empty((len(pictures), 3, how.resolution, how.resolution), dtype=np.float32)
    for channel, plane in enumerate(planes):
        resized = plane.astype(np.float32)
        if plane.shape[1] != how.resolution:
            taps = resizing(plane.shape[1], how.resolution)
            resized = _resized(_resized(resized, *taps, axis=1), *taps, axis=2)
        resized *= scale[channel]
        np.add(resized, shift[channel], out=found[:, channel])
    return found


def _resized(planes: np.ndarray, places: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Planes (n, height, width) with another number of rows (axis 1) or columns (axis 2)."""
    shape = (-1, 1) if axis == 1 else (-1,)
    found = np.take(planes, places[0], axis) * weights[0].reshape(shape)
    for place, weight in zip(places[1:], weights[1:], strict=True):
        found += np.take(planes, place, axis) * weight.reshape(shape)
    return found


@cache
def resizing(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear resizing with anti-aliasing, from `old` to `new` pixels, as sums of a few pixels each.

    Places in the old row and their weights, both (n_taps, new). What PyTorch's
    interpolate(antialias=True, align_corners=False) does: a triangle around the place in the old row that a new pixel's middle
    has, as wide as a new pixel where that is wider than an old one, divided by its sum.
    """
    scale = old / new
    width = max(scale, 1.0)
    middle = (np.arange(new) + 0.5) * scale
    distance = np.abs(np.arange(old) + 0.5 - middle[:, None])
    weights = np.maximum(0, 1 - distance / width)
    weights /= weights.sum(axis=1, keepdims=True)
    taps = int((weights > 0).sum(axis=1).max())
    first = np.minimum((weights > 0).argmax(axis=1), old - taps)  # the pixels of one sum are neighbours
    places = first + np.arange(taps)[:, None]
    return places, np.take_along_axis(weights.T, places, axis=0).astype(np.float32)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("a model.onnx needs the package onnxruntime: pip install onnxruntime; or use models/model.pth") from None
    return onnxruntime
