"""Many images through a model: what a run is, and its parts, several batches at a time."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from stages.lib import decoding, images
from stages.lib.faults import shown
from stages.lib.parts import Bounds, Parts
from stages.lib.predictor import Predictor
from stages.lib.progress import Progress
from stages.lib.sources import Source
from stages.lib.tables import Row


def record(predictor: Predictor, source: Source, frame: images.Frame, batch_size: int, tta: bool) -> dict[str, Any]:
    """What results belong to: those of a run with another record must not be mixed with them. Keys are for people."""
    return {
        "model": predictor.fingerprint,
        "attributes": predictor.attributes,
        "thresholds or calibration": predictor.numbers(),
        "images": len(source.names),
        "names of images": names_digest(source.names),
        "folder of images": os.path.abspath(source.base),
        "batch_size": batch_size,
        "tta": tta,
        "limits of size": [frame.max_megapixels, frame.max_aspect],
        "device or precision": predictor.backend.precision,
    }


def names_digest(names: list[str]) -> str:
    """SHA-256 of a list of names."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(os.fsencode(name) + b"\0")
    return digest.hexdigest()


def files_stamp(source: Source, bounds: Bounds) -> str:
    """A number for the sizes and times of change of a part's files: another one where, without reading them, one has changed."""
    digest = hashlib.sha256()
    for name in source.names[slice(*bounds)]:
        try:
            status = os.stat(source.base / name)
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        except (OSError, ValueError):  # not there, out of reach, or no name of a file
            digest.update(b"none\n")
    return digest.hexdigest()[:16]


def fill(parts: Parts, predictor: Predictor, source: Source, frame: images.Frame, batch_size: int, workers: int) -> None:
    """Work on the parts that are missing; `workers` threads open images, the predictor's lanes run batches of them meanwhile."""
    missing, outdated = parts.missing(partial(files_stamp, source))
    total, todo = (sum(end - first for first, end in bounds) for bounds in (parts.bounds, missing))
    if todo < total:
        print(f"{total - todo} of {total} images are done already: carrying on", file=sys.stderr)
    if outdated:
        print(f"{outdated} parts are done again: of their images some have changed since", file=sys.stderr)
    stamps: dict[Bounds, str] = {}
    names = names_of(source, missing, stamps)
    at_once = max(batch_size, decoding.AHEAD * workers)
    opened = decoding.in_order(partial(pixels_or_reason, source.base, frame), names, workers, at_once)
    lanes = max(1, predictor.backend.lanes)
    # Twice as many batches as lanes: the next is ready when one is done, also where the one before it takes longer.
    answers = decoding.in_order(partial(answered, predictor), batches(source, missing, batch_size, opened), lanes, 2 * lanes)
    progress = Progress(total, total - todo)
    for first, end in missing:
        rows: list[Row] = []
        for batch in islice(answers, -(-(end - first) // batch_size)):
            rows += batch
            progress.add(len(batch), sum(bool(row.reason) for row in batch))
        parts.write((first, end), rows, stamps.pop((first, end)))
    progress.close()


def names_of(source: Source, missing: list[Bounds], stamps: dict[Bounds, str]) -> Iterator[str]:
    """Names of all images of the missing parts; each part is stamped just before its first image is opened."""
    for bounds in missing:
        stamps[bounds] = files_stamp(source, bounds)
        yield from source.names[slice(*bounds)]


def batches(
    source: Source, missing: list[Bounds], batch_size: int, opened: Iterator[np.ndarray | str]
) -> Iterator[tuple[list[str], list[np.ndarray | str]]]:
    """Names and what came of opening them, a batch at a time; none spans two parts."""
    for first, end in missing:
        for start in range(first, end, batch_size):
            names = source.names[start : min(start + batch_size, end)]
            yield names, list(islice(opened, len(names)))


def answered(predictor: Predictor, batch: tuple[list[str], list[np.ndarray | str]]) -> list[Row]:
    """Rows of one batch, in its order; what could not be opened takes no part in the forward pass."""
    names, opened = batch
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
