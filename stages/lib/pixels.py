"""The pixel store: every usable image decoded once, as one array on disk that train and evaluate read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from stages.lib.errors import UserError


def write(path: Path, images: Iterable[np.ndarray], side: int) -> int:
    """Write uint8 images of shape (side, side, 3) as one .npy of shape (n_images, side, side, 3); return n_images.

    One image is in memory at a time. The number of images is known only at the end, so the header is
    written twice: NumPy leaves room in it for the first axis to grow.
    """
    count = 0
    with open(path, "wb") as opened:
        _write_header(opened, 0, side)
        for image in images:
            opened.write(np.ascontiguousarray(image, dtype=np.uint8).data)
            count += 1
        opened.seek(0)
        _write_header(opened, count, side)
    return count


def _write_header(opened: object, count: int, side: int) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
    npy.write_array_header_1_0(opened, header)  # type: ignore[arg-type]


def read(path: Path) -> np.ndarray:
    """The store as a read-only memory map of shape (n_images, side, side, 3), uint8."""
    try:
        store = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the validate stage writes it: run 'dvc repro validate'") from None
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}); run 'dvc repro --force validate'") from None
    if store.dtype != np.uint8 or store.ndim != 4 or store.shape[1] != store.shape[2] or store.shape[3] != 3:
        raise UserError(f"{path} does not hold square RGB images; run 'dvc repro --force validate'")
    return store
