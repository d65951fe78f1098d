"""The pixel store: every usable image decoded once, as one array on disk that train and evaluate read."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

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


class Pictures(Protocol):
    """Pictures by number, each uint8 of shape (side, side, 3): a `Store`, or a list of arrays."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


class Store:
    """The pictures of a .npy file by number, each read from disk when it is asked for.

    A memory map would count every page once touched as this process's memory: 2 GB at 10,000 pictures. Threads
    and worker processes may share a store. The file stays open, so a store that replaces it does not mix in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(mapped, np.memmap):
            raise ValueError("it is no single array")
        self.shape, self.dtype = mapped.shape, mapped.dtype
        self._start = mapped.offset
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - stays open as long as the store is used

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        """Picture number `index`, uint8 of shape (side, side, 3), read-only."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        size = math.prod(self.shape[1:])
        found = os.pread(self._file.fileno(), size, self._start + index * size)
        if len(found) != size:
            raise UserError(f"{self.path} has become shorter while it was read; run 'dvc repro --force validate'")
        return np.frombuffer(found, dtype=np.uint8).reshape(self.shape[1:])

    def __reduce__(self) -> tuple[object, ...]:
        return Store, (self.path,)  # a process that is spawned, not forked, opens it anew


def read(path: Path) -> Store:
    """The store at `path`; UserError where it is missing or no store of this project."""
    try:
        store = Store(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the validate stage writes it: run 'dvc repro validate'") from None
    except (ValueError, OverflowError, OSError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}); run 'dvc repro --force validate'") from None
    if store.dtype != np.uint8 or len(store.shape) != 4 or store.shape[1] != store.shape[2] or store.shape[3] != 3:
        raise UserError(f"{path} does not hold square RGB images; run 'dvc repro --force validate'")
    return store
