"""What a fuzzer does to files that are right: bytes turned and cut, and model files spoilt part by part.

Random bytes in a model file hardly get past the checksums of its zip archive. `spoilt_model` therefore builds files whose
archive is sound and whose content is not: values, names, shapes and types of the dictionary, the opcodes of its pickle,
the records of the archive.
"""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import random
import warnings
import zipfile
from typing import Any

import torch

TOKENS = [b"\0", b"\n", b"\r", b"NA", b"1", b"0", b'"', b",", b"#", b"=", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[2J", b"../"]
TOKENS += [b"1e999", b"-1", b"nan", b"{", b"[", b"&a ", b"*a", b"!!python/object:os.system", b"\xff\xff\xff\xff"]
TOKENS += [b"\x7f\xff\xff\xff"]
NAMES = ["", "head.1.weight", "backbone.x", "format", "x" * 10_000, "\x1b[2J", "=1", "\0", "../x", "members", "é\u202e"]
VALUES: list[Any] = [None, True, False, 0, 1, -1, 3, 10**6, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf")]
VALUES += [1j, b"", b"x", (), [], {}, [[]], {"a": 1}, (0.5, 0.5, 0.5), (1, 2), ["red"], [0.1, 0.1], set(), "squash", *NAMES]
KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]
KINDS += [torch.complex64]
SHAPES = [(), (0,), (1,), (2,), (4,), (2, 4), (4, 2), (4, 64), (0, 4), (1, 1, 1, 1), (3, 16, 16), (2, 10**9), (10**6, 10**6)]


class Chosen(random.Random):
    """Chance that is read from bytes, so that libFuzzer can steer it; when they are used up, it gives zeros."""

    def __new__(cls, _: bytes) -> Chosen:
        return super().__new__(cls)

    def __init__(self, content: bytes) -> None:
        self.left = io.BytesIO(content)

    def random(self) -> float:
        return self.getrandbits(24) / 2**24

    def getrandbits(self, k: int, /) -> int:
        count = -(-k // 8)
        return int.from_bytes(self.left.read(count), "little") & ((1 << k) - 1)


def spoilt(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """`content` with bytes turned, cut, repeated, put in, or taken from one of `others`."""
    found = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at, length = chance.randrange(len(found) + 1), chance.choice([1, 1, 2, 4, 8, 64])
        kind = chance.randrange(7)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(found):
            found[at] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
        elif kind == 2:
            del found[at : at + length]
        elif kind == 3:
            found[at:at] = found[at : at + length] * chance.choice([1, 2, 50])
        elif kind == 4:
            found[at:at] = chance.choice(TOKENS)
        elif kind == 5:
            other = chance.choice(others)
            start = chance.randrange(len(other) + 1)
            found[at : at + length] = other[start : start + length]
        else:
            del found[at if chance.random() < 0.2 else len(found) :]
    return bytes(found)


def spoilt_model(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A model file of which the dictionary, the pickle, the archive or the bytes are spoilt, or several of them."""
    kind = chance.randrange(8)
    if kind < 5:
        with contextlib.suppress(RuntimeError, NotImplementedError, TypeError):  # what PyTorch can't change or save
            content = _in_the_dictionary(content, chance)
    if kind in (4, 5):
        content = _in_the_pickle(content, chance)
    if kind in (4, 6):
        content = _in_the_archive(content, chance)
    return spoilt(content, others, chance) if kind == 7 else content


def _in_the_dictionary(content: bytes, chance: random.Random) -> bytes:
    loaded = torch.load(io.BytesIO(content), weights_only=True)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        holder, key = chance.choice(_places(loaded))
        value = holder[key]
        kind = chance.randrange(6)
        if kind == 0:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
        elif kind == 1:
            del holder[key]
        elif kind == 2 and isinstance(holder, dict):
            holder[chance.choice([*NAMES, 0, None, 1.5, (1,), f"{key}.x"])] = holder.pop(key)
        elif kind == 3:
            other, place = chance.choice(_places(loaded))
            holder[key] = copy.deepcopy(other[place])  # a shallow copy could hold its holder
        elif isinstance(value, torch.Tensor) and value.numel() < 10**6:  # not one that claims to be large
            holder[key] = _other_tensor(value, chance)
        else:
            holder[key] = _other_tensor(torch.ones(2), chance)
    written = io.BytesIO()
    torch.save(loaded, written, _use_new_zipfile_serialization=chance.random() < 0.9)
    return written.getvalue()


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every (dictionary or list, key) below `content`."""
    keys = list(content) if isinstance(content, dict) else range(len(content))
    found = [(content, key) for key in keys]
    for key in keys:
        if isinstance(content[key], dict | list):
            found += _places(content[key])
    return found or [({"x": 0}, "x")]


def _other_tensor(tensor: torch.Tensor, chance: random.Random) -> Any:
    kind = chance.randrange(9)
    if kind == 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tensor.to(chance.choice(KINDS))
    if kind == 1:
        return torch.zeros(()).expand(chance.choice(SHAPES))  # one stored number, whatever the shape says
    if kind == 2:
        return tensor.flatten()[: chance.randrange(8)]
    if kind == 3:
        return torch.full_like(tensor, chance.choice([float("nan"), float("inf"), -1e38, 0])) if tensor.is_floating_point() else 0
    if kind == 4:
        return tensor.T if tensor.ndim == 2 else tensor.unsqueeze(0)
    if kind == 5:
        return torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor.bool()
    if kind == 6:
        return torch.zeros(2, 3).to_sparse()
    if kind == 7:
        return torch.zeros(chance.choice(SHAPES[:8]), device="meta")
    return torch.stack([tensor, tensor])


def _in_the_pickle(content: bytes, chance: random.Random) -> bytes:
    """Opcodes of data.pkl changed, in an archive whose checksums are right."""

    def change(records: list[tuple[str, bytes]]) -> None:
        for index, (name, body) in enumerate(records):
            if name.endswith("data.pkl"):
                records[index] = name, _other_opcodes(body, chance)

    return _rewritten(content, change, zipfile.ZIP_STORED)


def _other_opcodes(body: bytes, chance: random.Random) -> bytes:
    found = bytearray(body)
    codes = [code for name, value in vars(pickle).items() if name.isupper() and isinstance(value, bytes) for code in value[:1]]
    for _ in range(chance.choice([1, 1, 2, 4, 8])):
        at = chance.randrange(len(found))
        kind = chance.randrange(4)
        if kind == 0:
            found[at] = chance.choice(codes)
        elif kind == 1:  # a number: BININT1, BININT2 or BININT
            number = chance.choice([0, 1, 2, 255, 65535, 2**31 - 1, 2**32 - 1]).to_bytes(4, "little")
            found[at:at] = chance.choice([b"K" + number[:1], b"M" + number[:2], b"J" + number])
        elif kind == 2:
            found[at:at] = bytes([chance.choice(codes)])
        else:
            del found[at : at + chance.choice([1, 2, 5])]
    return bytes(found or b".")


def _in_the_archive(content: bytes, chance: random.Random) -> bytes:
    """Records left out, shortened, lengthened, renamed, doubled, swapped; perhaps packed, as a bomb would be."""

    def change(records: list[tuple[str, bytes]]) -> None:
        for _ in range(chance.choice([1, 1, 2, 4])):
            index = chance.randrange(len(records))
            name, body = records[index]
            kind = chance.randrange(7)
            if kind == 0 and len(records) > 1:
                del records[index]
            elif kind == 1:
                records[index] = name, body[: chance.randrange(len(body) + 1)]
            elif kind == 2:
                records[index] = name, body + bytes(chance.choice([1, 1000, 10**7]))
            elif kind == 3:
                records[index] = chance.choice(["../../x", "/etc/x", "/", "archive/data.pkl", "archive/data/0", name + "x"]), body
            elif kind == 4:
                records.append((name, body[::-1]))
            elif kind == 5:
                other = chance.randrange(len(records))
                records[index], records[other] = (name, records[other][1]), (records[other][0], body)
            else:
                records[index] = name, chance.choice([b"", b"big", b"little", b"99", b"-1", *TOKENS])

    return _rewritten(content, change, chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def _rewritten(content: bytes, change: Any, packing: int) -> bytes:
    if not zipfile.is_zipfile(io.BytesIO(content)):  # torch.save's older format
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    change(records)
    written = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(written, "w", packing) as archive:
        warnings.simplefilter("ignore")  # a name that stands there twice
        for name, body in records:
            archive.writestr(name, body)
    return written.getvalue()
