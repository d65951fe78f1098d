"""Give the readers of foreign files what nobody would write: they may refuse it, with a message, and nothing else.

    python -m tests.bench.fuzz --seconds 60                       # all five readers, a minute each
    python -m tests.bench.fuzz --targets labels --seconds 600 --atheris

Files that are right are spoilt at random: bytes turned, cut, repeated, put in, taken from another file. With --atheris
(pip install atheris) libFuzzer does it, guided by the code that an input reaches. What crashes a reader, or takes more than
ten seconds, is kept in the folder --crashes; mended ones become tests in tests/test_hostile.py.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import numpy as np
import torch
from PIL import Image

from stages.lib import backbones, decisions, files, images, labels, model, params
from stages.lib.errors import UserError
from stages.lib.preprocessing import Preprocessing
from stages.train import READS

ROOT = Path(__file__).parents[2]
SLOW = 10.0  # seconds
TOKENS = [
    b"\0",
    b"\n",
    b"\r",
    b"NA",
    b"1",
    b"0",
    b'"',
    b",",
    b"#",
    b"=",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x1b[2J",
    b"../",
    b"1e999",
]
TOKENS += [
    b"1e999",
    b"-1",
    b"nan",
    b"{",
    b"[",
    b"&a ",
    b"*a",
    b"!!python/object:os.system",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
]


def read_labels(content: bytes, folder: Path) -> None:
    for name in ("labels.txt", "labels.csv"):
        (folder / name).write_bytes(content)
        try:
            found = labels.read(folder / name)
        except UserError:
            continue
        for line in found.table["image"]:
            images.inside(folder, line)
        files.write_table(folder / "clean.csv", found.table)
        back = files.read_table(folder / "clean.csv", "validate")
        assert list(back["image"]) == list(found.table["image"]), "names changed on their way through a table"


def read_settings(content: bytes, folder: Path) -> None:
    (folder / "params.yaml").write_bytes(content)
    with contextlib.suppress(UserError):
        params.load(folder / "params.yaml", READS)


def open_image(content: bytes, folder: Path) -> None:
    (folder / "image").write_bytes(content)
    for fit in ("squash", "crop", "pad"):
        try:
            opened = images.open_square(folder / "image", images.Frame(32, fit, 1, 20))
        except images.ImageFault:
            continue
        assert opened.pixels.shape == (32, 32, 3)
        assert opened.pixels.dtype == np.uint8


def load_model(content: bytes, folder: Path) -> None:
    (folder / "model.pth").write_bytes(content)
    with contextlib.suppress(UserError):
        model.load(folder / "model.pth").networks()


def read_decision(content: bytes, folder: Path) -> None:
    (folder / "decision.json").write_bytes(content)
    with contextlib.suppress(UserError):
        decisions.read(folder / "decision.json", "abc", ["red", "framed"], 1)


def label_files(_: Path) -> list[bytes]:
    text = "image striped long collar\nphoto_1.jpg 1 NA 0\nshoes/p 2.png 0 1 0\n# no\n=cmd.jpg 1 0 NA\nphoto_1.jpg 0 1 0\n"
    return [text.encode(), text.replace(" ", ",").encode(), b"a.jpg 1\nb.jpg 0\n", b'image,"a ""b"""\r\n"x,y.png",1\r\n']


def setting_files(_: Path) -> list[bytes]:
    return [(ROOT / "params.yaml").read_bytes()]


def image_files(_: Path) -> list[bytes]:
    chance = np.random.default_rng(0)
    picture = Image.fromarray(chance.integers(0, 255, (40, 30, 3), dtype=np.uint8))
    found = []
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "TGA"):
        for mode in ("RGB", "L", "P", "RGBA", "I;16"):
            buffer = io.BytesIO()
            try:
                (picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)).save(buffer, kind)
            except (OSError, ValueError):
                continue
            found.append(buffer.getvalue())
    return found


def model_files(folder: Path) -> list[bytes]:
    torch.manual_seed(0)
    network = model.Tagger(backbones.create("test_vit", "none", 32), 2, 4, (0.1, 0.1))
    member = model.Member(network.state_dict(), [1.0, 2.0], 1, 0.5)
    how = Preprocessing(32, "squash", 32, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    saved = model.Saved("test_vit", ["red", "framed"], 4, [0.1, 0.1], how, {"lr": 0.1}, [member])
    model.save(folder / "seed.pth", saved)
    return [(folder / "seed.pth").read_bytes()]


def decision_files(_: Path) -> list[bytes]:
    each = {"log_pos_weight": [0.5], "temperature": 1.5, "threshold": 0.4, "goal_reached": True}
    return [json.dumps({"model": "abc", "goal": {"name": "f1"}, "attributes": {"red": each, "framed": each}}).encode()]


Target = Callable[[bytes, Path], None]
TARGETS: dict[str, tuple[Target, Callable[[Path], list[bytes]]]] = {
    "labels": (read_labels, label_files),
    "settings": (read_settings, setting_files),
    "image": (open_image, image_files),
    "model": (load_model, model_files),
    "decision": (read_decision, decision_files),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seconds", type=float, default=60, help="for each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crashes", type=Path, default=Path("crashes"))
    parser.add_argument("--atheris", action="store_true", help="for the first of --targets")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        if args.atheris:
            guided(args.targets[0], args, Path(scratch))
        sys.exit(sum(at_random(name, args, Path(scratch)) for name in args.targets) > 0)


def at_random(name: str, args: argparse.Namespace, scratch: Path) -> int:
    """Number of different crashes."""
    target, seeds_of = TARGETS[name]
    seeds, chance = seeds_of(scratch), random.Random(f"{args.seed}:{name}")
    tried, crashes, slowest, started = 0, set(), 0.0, time.monotonic()
    while time.monotonic() - started < args.seconds:
        content = spoilt(chance.choice(seeds), seeds, chance)
        tried += 1
        began = time.monotonic()
        try:
            target(content, scratch)
        except Exception as error:
            place = error.__traceback__
            while place and place.tb_next:
                place = place.tb_next
            key = f"{type(error).__name__} in {place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
            if key not in crashes:
                crashes.add(key)
                print(f"  {name}: {key}: {str(error)[:150]} -> {kept(args.crashes, name, content)}")
        slowest = max(slowest, time.monotonic() - began)
        if time.monotonic() - began > SLOW:
            print(f"  {name}: slow -> {kept(args.crashes, name, content)}")
    print(f"{name}: {tried:,} inputs, {len(crashes)} different crashes, slowest {slowest:.2f} s", flush=True)
    return len(crashes)


def kept(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    place.write_bytes(content)
    return place


def spoilt(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
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


def guided(name: str, args: argparse.Namespace, scratch: Path) -> None:
    """libFuzzer, which ends the process: at the first crash, or when the time is over."""
    import atheris

    target, seeds_of = TARGETS[name]
    corpus = scratch / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds_of(scratch)):
        (corpus / str(number)).write_bytes(seed)
    for module in (labels, params, images, decisions, files, model):  # all of Python would take minutes
        for called, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and value.__module__ == module.__name__ and not hasattr(value, "__wrapped__"):
                setattr(module, called, atheris.instrument_func(value))
    args.crashes.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={args.seconds:.0f}", f"-artifact_prefix={args.crashes}/", "-timeout=10", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], str(corpus), *options], lambda content: target(content, scratch))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
