"""What an earlier run of validate has left and still holds: pixels of unchanged files, and which of them are copies.

Everything is found by the digest of the file, and only used where it was made by the same code, libraries and
settings, so that a run with leftovers ends with the same bytes as one without.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import PIL

from stages.lib import duplicates, files, images, pixels
from stages.lib.errors import UserError


def recipe(frame: images.Frame) -> str:
    """Fingerprint of all that turns a file into pixels and hashes: code, libraries, side and fit."""
    code = [files.fingerprint(Path(str(module.__file__))) for module in (images, duplicates)]
    text = f"{PIL.__version__} {imagehash.__version__} {frame.side} {frame.fit} {code}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Earlier:
    """The outputs of an earlier run in folder `out`; nothing is found where there are none, or others."""

    def __init__(self, out: Path, made_by: str, frame: images.Frame) -> None:
        self.out = out
        self.recipe = made_by
        self.frame = frame
        self.rows: dict[str, dict[str, tuple[int, dict[str, object]]]] = {}  # by digest, then by name: files may be equal
        self.described = pd.DataFrame()
        try:
            described = files.read_table(out / "images.csv", "validate")
            self.store = pixels.read(out / "pixels.npy")
            if set(described["recipe"]) == {made_by}:
                self.described = described
                facts = described.drop(columns=["group", "compared"]).to_dict("records")
                for index, row in enumerate(facts):
                    self.rows.setdefault(row["sha256"], {})[row["image"]] = (index, row)
        except (UserError, KeyError):
            self.rows = {}

    def find(self, path: Path, name: str) -> tuple[int, dict[str, object]] | None:
        """Place in the store and facts of the file at `path`, called `name` in the table.

        Raises ImageFault where today's limits refuse its size.
        """
        if not self.rows:
            return None
        found = self.rows.get(files.fingerprint(path))
        if found is None:
            return None
        index, facts = found.get(name) or next(iter(found.values()))
        # A kill between the writing of store and table leaves two that do not belong together.
        if index >= len(self.store) or zlib.crc32(self.store[index].tobytes()) != facts["crc32"]:
            return None
        images.check_size(int(facts["width"]), int(facts["height"]), self.frame)  # type: ignore[call-overload]
        return index, dict(facts)

    @contextmanager
    def store_of(self, pictures: Iterator[np.ndarray | int], at_most: int) -> Iterator[Path]:
        """Yield a file with the `pictures`, given as pixels or by their place in the earlier store; `at_most` so many.

        It becomes `pixels.npy` once the block ends without an error. Where every picture stands where it stood,
        the earlier file is that file, and nothing is written.
        """
        in_place, moved = 0, []
        for item in pictures:
            if not isinstance(item, int) or item != in_place:
                moved = [item]
                break
            in_place += 1
        path = self.out / "pixels.npy"
        if self.rows and not moved and in_place == len(self.store):
            yield path
            return
        files.check_space(self.out, at_most * self.frame.side**2 * 3, f"storing {at_most} pictures")
        all_of_them = chain(range(in_place), moved, pictures)
        with files.replacing(path) as temporary:
            read = (self.store[item] if isinstance(item, int) else item for item in all_of_them)
            pixels.write(temporary, read, self.frame.side)
            yield temporary

    def settled(self, distance: int) -> duplicates.Settled:
        """The pairs that were found at this `distance`."""
        nothing = duplicates.Settled()
        table = self.out / "pairs.csv"
        if not self.rows or not table.is_file() or set(self.described["compared"]) != {comparison(table, distance)}:
            return nothing
        try:
            found = files.read_table(table, "validate")
            digest_of = dict(zip(self.described["image"], self.described["sha256"], strict=True))
            named = [(digest_of[one], digest_of[other]) for one, other in zip(found["image"], found["copy"], strict=True)]
        except (UserError, KeyError):
            return nothing
        return duplicates.Settled(frozenset(self.described["sha256"]), tuple(named))


def comparison(pairs_file: Path, distance: int) -> str:
    """What images.csv says of the comparison that its groups come from: its distance and its list of pairs.

    The two files are written one after the other: after a kill between them this no longer fits.
    """
    return f"{distance}:{files.fingerprint(pairs_file)[:16]}"
