"""A run spread over processes or machines: which images are whose, a file per shard, and the merge of all files.

Shards are runs of whole batches of the one list, so that batches, and with them floats, are those of a run in one piece.
A shard's file is JSON lines: what the run was, then its rows.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib import decoding, files, parts
from stages.lib.errors import UserError
from stages.lib.tables import Row

FORMAT = "image-attribute-tagger shard 1"


@dataclass(frozen=True)
class Shard:
    """Number `index` of `count`, counted from 1."""

    index: int
    count: int

    def bounds(self, images: int, batch_size: int) -> tuple[int, int]:
        """First image and the one after the last, of `images` in all."""
        batches = -(-images // batch_size)
        first, end = (number * batches // self.count * batch_size for number in (self.index - 1, self.index))
        return min(first, images), min(end, images)

    def file(self, out: Path) -> Path:
        return out.with_name(f"{out.name}.shard-{self.index}-of-{self.count}.jsonl")


WHOLE = Shard(1, 1)


def read(text: str) -> Shard:
    """A shard from `i/n`; ValueError for what is none."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"{text!r} is not i/n with i from 1 to n, such as 1/4 for the first of four")
    return Shard(int(found[1]), int(found[2]))


def of_environment() -> Shard:
    """The shard that torchrun (or a launcher that sets the same variables) gives to this process."""
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    if rank is None or size is None:
        return WHOLE
    if not rank < size:
        raise UserError(f"RANK is {rank} and WORLD_SIZE {size}, as set by a launcher: RANK must be smaller; or say --shard i/n")
    return Shard(rank + 1, size)


def local_rank() -> int | None:
    """Number of this process on its machine, where a launcher has set it."""
    return _number("LOCAL_RANK") if "WORLD_SIZE" in os.environ else None


def own_cores() -> int:
    """Cores that are this process's share, where a launcher has started several on its machine."""
    beside = _number("LOCAL_WORLD_SIZE") if "WORLD_SIZE" in os.environ else None
    return max(1, decoding.cores() // (beside or 1))


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,6}", text):
        raise UserError(f"the environment variable {name} is {text!r}, not a whole number; unset it, or say --shard i/n")
    return int(text)


def write(out: Path, shard: Shard, run: Mapping[str, Any], rows: Iterable[Row]) -> Path:
    """Write the shard's file beside `out`; `run` is what all shards must have in common."""
    path = shard.file(out)
    header = {"format": FORMAT, "shard": [shard.index, shard.count], "run": run}
    with files.replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as opened:
        opened.write(json.dumps(header, ensure_ascii=False) + "\n")
        opened.writelines(parts.line(row) for row in rows)
    return path


def found(out: Path) -> tuple[dict[str, Any], list[tuple[Path, int]]]:
    """The run, and the files of all its shards in order with their numbers of rows.

    Raises UserError unless every shard is there, once, and of the same run.
    """
    headers = {path: _header(path) for path in sorted(out.parent.iterdir()) if path.name.startswith(f"{out.name}.shard-")}
    if not headers:
        raise UserError(f"there is no {out.name}.shard-*.jsonl in {out.parent}; run the shards first, with the same --out")
    (first, reference), *others = headers.items()
    place: dict[int, Path] = {}
    for path, header in [(first, reference), *others]:
        other = parts.differences(reference["run"], header["run"])
        if header["shard"][1] != reference["shard"][1]:
            other.insert(0, "number of shards")
        if other:
            raise UserError(f"{path} and {first} are of different runs: other {', '.join(other)}; delete what does not belong")
        index = header["shard"][0]
        if index in place:
            raise UserError(f"{path} and {place[index]} are the same shard; delete one of them")
        place[index] = path
    run, count = reference["run"], reference["shard"][1]
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in place]
    if missing:
        raise UserError(f"shards are missing: {', '.join(missing)}; run the same command with --shard {missing[0]}")
    sizes = [Shard(index, count).bounds(run["images"], run["batch_size"]) for index in sorted(place)]
    return run, [(place[index], end - start) for index, (start, end) in enumerate(sizes, start=1)]


def rows(shard_files: Iterable[tuple[Path, int]]) -> Iterator[Row]:
    for path, expected in shard_files:
        with open(path, encoding="utf-8") as opened:
            next(opened)  # the header
            yield from parts.parsed(opened, path, expected)


def _header(path: Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as opened:
            header = json.loads(opened.readline())
        if header["format"] != FORMAT or not all(isinstance(number, int) for number in header["shard"]):
            raise ValueError
        _ = header["run"]["images"] + header["run"]["batch_size"]
        return header
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path} is not a shard's file; delete it and run that shard again") from None
