"""The results of a run that is under way: small files beside the table, each complete or absent.

A run is cut into parts of whole batches whose bounds depend on nothing but the number of images and the batch
size. A part is written once its last image is done. After a kill the same command finds the parts that are there
and works on the others; since no batch ever spans two parts, every image meets the same neighbours in its batch as in a
run without a kill, and gets the same floats.

    <out>.parts/run.json       what the parts belong to: model, decisions, settings, images
    <out>.parts/lock           held while a process works on them
    <out>.parts/part-000000000128-000000000256-1f0c9a....jsonl

The last number of a part's name, its stamp, says of which state of the image files it tells (`tagging.files_stamp`).
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stages.lib import files
from stages.lib.errors import UserError
from stages.lib.tables import Row

IMAGES = 128  # in a part, or one batch where that is more: a part is what a kill costs at most
Bounds = tuple[int, int]


def cut(start: int, end: int, batch_size: int) -> list[Bounds]:
    """The parts of images start..end (end not among them), each of whole batches but for the last."""
    step = max(1, IMAGES // batch_size) * batch_size
    return [(first, min(first + step, end)) for first in range(start, end, step)]


class Parts:
    """The parts of one run, in the folder `place`, which this process alone works on until `close`."""

    def __init__(self, place: Path, run: Mapping[str, Any], bounds: Sequence[Bounds], restart: bool) -> None:
        self.place, self.bounds = place, list(bounds)
        self._stamps: dict[Bounds, str] = {}  # of the parts that are done
        with explained(place):
            place.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(place)
        try:
            self._continue(run, restart)
        except BaseException:
            self.close()
            raise

    def _continue(self, run: Mapping[str, Any], restart: bool) -> None:
        """Keep what is there of the same run; refuse what is there of another."""
        manifest = self.place / "run.json"
        if restart or not manifest.is_file():
            self._clear()
        else:
            before = files.read_json(manifest, "predict")
            other = differences(before, run)
            if other:
                raise UserError(
                    f"{self.place} holds an unfinished run of other {', '.join(other)}. Ways out: give the same command as then, "
                    f"choose another --out, or add --restart, which drops the {len(self._written())} parts that are done"
                )
        for left_over in self.place.glob(".part-*"):  # of a process that was killed while it wrote
            left_over.unlink(missing_ok=True)
        with explained(self.place):
            files.write_json(manifest, run, exact=True)

    def missing(self, stamp_of: Callable[[Bounds], str]) -> tuple[list[Bounds], int]:
        """The parts that are still to be done, and how many of them were done of files that are others now."""
        there = {path.name for path in self._written()}
        begun = {name.rpartition("-")[0] for name in there}
        missing, outdated = [], 0
        for bounds in self.bounds:
            if _start(bounds) in begun:
                self._stamps[bounds] = stamp_of(bounds)
                if self._path(bounds).name in there:
                    continue
                outdated += 1
                for path in self.place.glob(f"{_start(bounds)}-*"):
                    path.unlink(missing_ok=True)
            missing.append(bounds)
        return missing, outdated

    def write(self, bounds: Bounds, rows: Sequence[Row], stamp: str) -> None:
        self._stamps[bounds] = stamp
        with explained(self.place), files.replacing(self._path(bounds)) as temporary:
            temporary.write_text("".join(line(row) for row in rows), encoding="utf-8")

    def rows(self) -> Iterator[Row]:
        """The rows of all parts, in order; UserError where one has another number of rows than it should."""
        for first, end in self.bounds:
            path = self._path((first, end))
            with open(path, encoding="utf-8") as opened:
                yield from parsed(opened, path, end - first)

    def remove(self) -> None:
        """The run is done: its parts go, the manifest first, so that what a kill leaves here counts for nothing."""
        self._clear()
        (self.place / "lock").unlink(missing_ok=True)
        self.close()
        if not any(self.place.iterdir()):  # what somebody else has put here stays
            self.place.rmdir()

    def close(self) -> None:
        self._lock.close()

    def _clear(self) -> None:
        (self.place / "run.json").unlink(missing_ok=True)
        for part in [*self._written(), *self.place.glob(".part-*.jsonl"), *self.place.glob(".run.*.json")]:
            part.unlink(missing_ok=True)

    def _written(self) -> list[Path]:
        return list(self.place.glob("part-*.jsonl"))

    def _path(self, bounds: Bounds) -> Path:
        return self.place / f"{_start(bounds)}-{self._stamps[bounds]}.jsonl"


def _start(bounds: Bounds) -> str:
    """Of a part's name, what comes before its stamp."""
    return f"part-{bounds[0]:012}-{bounds[1]:012}"


def differences(before: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """Names of what two runs do not have in common."""
    return [str(key) for key in dict.fromkeys([*run, *before]) if before.get(key) != run.get(key)]


def line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def parsed(lines: Iterator[str] | IO[str], path: Path, expected: int) -> Iterator[Row]:
    """Rows from lines of `line`; UserError where they are damaged, or not as many as expected."""
    found = 0
    try:
        for text in lines:
            yield Row(*json.loads(text))
            found += 1
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{path} is damaged in row {found + 1}; delete it and run the same command again") from None
    if found != expected:
        raise UserError(f"{path} has {found} rows instead of {expected}; delete it and run the same command again")


@contextmanager
def explained(place: Path) -> Iterator[None]:
    """A full disk or a missing permission as one message."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{place} can't be written: {reason}; results so far are kept, the same command carries on") from None


def _locked(place: Path) -> IO[bytes]:
    opened = open(place / "lock", "ab")  # noqa: SIM115 - held, and so open, as long as the run lasts
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.close()
        raise UserError(f"another process is working on {place}; wait for it, stop it, or choose another --out") from None
    except OSError:  # a file system without locks: then it is the user who must not start a run twice
        pass
    return opened
