"""Many images through a model: what a run is, and its parts, a batch at a time."""

from __future__ import annotations

import hashlib
import os
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from stages.lib import decoding, images
from stages.lib.faults import shown
from stages.lib.parts import Parts
from stages.lib.predictor import Predictor
from stages.lib.progress import Progress
from stages.lib.sources import Source
from stages.lib.tables import Row


def record(predictor: Predictor, source: Source, frame: images.Frame, batch_size: int, tta: bool) -> dict[str, Any]:
    """What results belong to: those of a run with another record must not be mixed with them. Keys are for people."""
    digest = hashlib.sha256()
    for name in source.names:
        digest.update(os.fsencode(name) + b"\0")
    return {
        "model": predictor.fingerprint,
        "attributes": predictor.attributes,
        "thresholds or calibration": predictor.numbers(),
        "images": len(source.names),
        "names of images": digest.hexdigest(),
        "folder of images": os.path.abspath(source.base),
        "batch_size": batch_size,
        "tta": tta,
        "limits of size": [frame.max_megapixels, frame.max_aspect],
        "device or precision": predictor.backend.precision,
    }


def fill(parts: Parts, predictor: Predictor, source: Source, frame: images.Frame, batch_size: int, workers: int) -> None:
    """Work on the parts that are missing, a batch at a time; threads open what comes next meanwhile."""
    missing = parts.missing()
    total, todo = (sum(end - first for first, end in bounds) for bounds in (parts.bounds, missing))
    if todo < total:
        print(f"{total - todo} of {total} images are done already: carrying on", file=sys.stderr)
    names = (name for first, end in missing for name in islice(source.names, first, end))
    opened = decoding.in_order(partial(pixels_or_reason, source.base, frame), names, workers, ahead=batch_size)
    progress = Progress(total, total - todo)
    for first, end in missing:
        rows: list[Row] = []
        for start in range(first, end, batch_size):
            batch = source.names[start : min(start + batch_size, end)]
            rows += answered(predictor, batch, list(islice(opened, len(batch))))
            progress.add(len(batch), sum(bool(row.reason) for row in rows[-len(batch) :]))
        parts.write((first, end), rows)
    progress.close()


def answered(predictor: Predictor, names: list[str], opened: list[np.ndarray | str]) -> list[Row]:
    """Rows of one batch, in its order; what could not be opened takes no part in the forward pass."""
    pictures = [picture for picture in opened if not isinstance(picture, str)]
    found = iter(predictor.probabilities(np.stack(pictures)) if pictures else ())
    rows = []
    for name, picture in zip(names, opened, strict=True):
        if isinstance(picture, str):
            rows.append(Row(shown(name, 4096), [], [], picture))
        else:
            probabilities = next(found)
            decided = (probabilities >= predictor.thresholds).astype(int).tolist()
            rows.append(Row(shown(name, 4096), probabilities.round(6).tolist(), decided, ""))
    return rows


def pixels_or_reason(base: Path, frame: images.Frame, name: str) -> np.ndarray | str:
    try:
        return images.open_square(base / name, frame).pixels
    except images.ImageFault as fault:
        return fault.reason
