"""Give the readers of foreign files what nobody would write: they may refuse it, with a message, and nothing else.

    python -m tests.bench.fuzz --seconds 60                       # all five readers, a minute each
    python -m tests.bench.fuzz --targets labels --seconds 600 --atheris

Files that are right are spoilt at random (spoil.py): bytes turned, cut, repeated, put in, taken from another file; of model
files also the content of the dictionary, the pickle and the archive. With --atheris (pip install atheris) libFuzzer does it,
guided by the code that an input reaches; for models it makes the choices that spoil.py asks for. What crashes a reader, or
takes more than ten seconds, is kept in the folder --crashes; mended ones become tests in tests/test_hostile.py.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

import numpy as np
import torch
import torch._weights_only_unpickler
from PIL import Image

from stages.lib import backbones, decisions, faults, files, images, labels, model, model_file, params, preprocessing
from stages.lib.errors import UserError
from stages.train import READS
from tests.bench import spoil

ROOT = Path(__file__).parents[2]
SLOW = 10.0  # seconds
LARGE = 2**20  # KiB more than any input before


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
        model_file.load(folder / "model.pth").networks()


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
    member = model_file.Member(network.state_dict(), [1.0, 2.0], 1, 0.5)
    how = preprocessing.Preprocessing(32, "squash", 32, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    saved = model_file.Saved("test_vit", ["red", "framed"], 4, [0.1, 0.1], how, {"lr": 0.1}, [member])
    model_file.save(folder / "seed.pth", saved)
    return [(folder / "seed.pth").read_bytes()]


def decision_files(_: Path) -> list[bytes]:
    each = {"log_pos_weight": [0.5], "temperature": 1.5, "threshold": 0.4, "goal_reached": True}
    return [json.dumps({"model": "abc", "goal": {"name": "f1"}, "attributes": {"red": each, "framed": each}}).encode()]


class Target(NamedTuple):
    """`read` must refuse or take any file; `seeds` makes files that it takes; `spoil` what is tried."""

    read: Callable[[bytes, Path], None]
    seeds: Callable[[Path], list[bytes]]
    spoil: Callable[[bytes, list[bytes], random.Random], bytes] = spoil.spoilt


TARGETS = {
    "labels": Target(read_labels, label_files),
    "settings": Target(read_settings, setting_files),
    "image": Target(open_image, image_files),
    "model": Target(load_model, model_files, spoil.spoilt_model),
    "decision": Target(read_decision, decision_files),
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
        sys.exit(sum(in_child(name, args, Path(scratch)) for name in args.targets) > 0)


def at_random(name: str, args: argparse.Namespace, scratch: Path) -> int:
    """Number of different crashes."""
    target = TARGETS[name]
    seeds, chance = target.seeds(scratch), random.Random(f"{args.seed}:{name}")
    tried, crashes, slowest, started = 0, set(), 0.0, time.monotonic()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while time.monotonic() - started < args.seconds:
        content = target.spoil(chance.choice(seeds), seeds, chance)
        (scratch / "last").write_bytes(content)
        tried += 1
        began = time.monotonic()
        try:
            target.read(content, scratch)
        except Exception as error:
            place = error.__traceback__
            while place and place.tb_next:
                place = place.tb_next
            key = f"{type(error).__name__} in {place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
            if key not in crashes:
                crashes.add(key)
                print(f"  {name}: {key}: {str(error)[:150]} -> {kept(args.crashes, name, content)}")
        taken, peak = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        slowest = max(slowest, taken)
        if taken > SLOW or peak - memory > LARGE:
            print(f"  {name}: {taken:.1f} s, {(peak - memory) >> 10} MiB -> {kept(args.crashes, name, content)}")
        memory = max(memory, peak)
    print(f"{name}: {tried:,} inputs, {len(crashes)} different crashes, slowest {slowest:.2f} s", flush=True)
    return len(crashes)


def in_child(name: str, args: argparse.Namespace, scratch: Path) -> int:
    """`at_random` where a crash of the interpreter itself is seen; number of different crashes, at most 100."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 101
        try:
            code = min(at_random(name, args, scratch), 100)
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        print(f"{name}: ended by signal {-code} -> {kept(args.crashes, name, (scratch / 'last').read_bytes())}", flush=True)
    return abs(code)


def kept(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    place.write_bytes(content)
    return place


def guided(name: str, args: argparse.Namespace, scratch: Path) -> None:
    """libFuzzer, which ends the process: at the first crash, or when the time is over."""
    import atheris

    target, corpus = TARGETS[name], scratch / "corpus"
    corpus.mkdir()
    seeds = target.seeds(scratch)
    given = [os.urandom(64) for _ in range(50)] if target.spoil is spoil.spoilt_model else seeds
    for number, seed in enumerate(given):
        (corpus / str(number)).write_bytes(seed)
    instrument(atheris.instrument_func)

    def tried(content: bytes) -> None:
        if target.spoil is spoil.spoilt_model:
            content = target.spoil(seeds[0], seeds, spoil.Chosen(content))
        target.read(content, scratch)

    args.crashes.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={args.seconds:.0f}", f"-artifact_prefix={args.crashes}/", "-timeout=10", "-rss_limit_mb=6144"]
    atheris.Setup([sys.argv[0], str(corpus), *options], tried)
    atheris.Fuzz()


def instrument(by: Callable[[FunctionType], FunctionType]) -> None:
    """Make the readers' functions, and the part of PyTorch that reads pickles, tell what they run; all would take minutes."""
    modules = [labels, params, images, decisions, files, model, model_file, preprocessing, faults, backbones]
    modules += [torch.serialization, torch._weights_only_unpickler, torch._utils]
    names, done = {module.__name__ for module in modules}, dict[FunctionType, FunctionType]()
    for holder in [*modules, model_file.Saved, torch._weights_only_unpickler.Unpickler]:
        for called, value in list(vars(holder).items()):
            if isinstance(value, FunctionType) and value.__module__ in names and not hasattr(value, "__wrapped__"):
                done[value] = done.get(value) or by(value)
                setattr(holder, called, done[value])


if __name__ == "__main__":
    main()
