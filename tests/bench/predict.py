"""Images per second and peak memory of predict, beside its parts: a plain loop, the forward pass alone, decoding alone.

    python -m tests.bench.predict FOLDER --images 2000 --memory 1000,20000 --onnx models/model.onnx

Fills a temporary folder with links to a folder's pictures. Forward, decoding and the loop run in this process, on a
sample of the pictures; predict runs as a command, with its start subtracted (that of an empty folder).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from stages.lib import decoding, engine, folder, images, memory, model, portable, preprocessing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--sample", type=int, default=256, help="pictures for loop, forward pass and decoding")
    parser.add_argument("--memory", default="", help="sizes of folders whose peak memory is compared")
    parser.add_argument("--model", type=Path, default=Path("models/model.pth"))
    parser.add_argument("--onnx", type=Path)
    args = parser.parse_args()
    memory.keep_freed()
    names = folder.image_files(args.source)
    with tempfile.TemporaryDirectory() as scratch:
        speeds(args, names, Path(scratch))
        for count in [int(text) for text in args.memory.split(",") if text]:
            linked(args.source, names, Path(scratch) / f"m{count}", count)
            seconds, peak = command(Path(scratch) / f"m{count}", args.model)
            print(f"{count:>6} images: peak memory {peak:.0f} MiB, {count / seconds:.1f} images/s with start", flush=True)


def speeds(args: argparse.Namespace, names: list[str], scratch: Path) -> None:
    at_work = engine.Engine(args.model, "auto", bf16=True, mirrored=False)
    how = at_work.preprocessing
    frame = images.Frame(how.side, how.fit, 120, 20)
    paths = [args.source / names[index % len(names)] for index in range(args.sample)]
    pictures = np.stack([picture for picture in decoding.in_order(partial(opened, frame), paths) if picture is not None])
    loop = plain_loop(args.model, paths[: max(16, args.sample // 4)], frame)
    decode = rate(len(paths), lambda: list(decoding.in_order(partial(opened, frame), paths)))
    inputs = preprocessing.to_input(pictures[:32], how).to(at_work.device, memory_format=torch.channels_last)
    with torch.inference_mode():
        forward = rate(8 * len(inputs), lambda: [at_work.networks[0](inputs).cpu() for _ in range(8)])
    batches = [pictures[start : start + 32] for start in range(0, len(pictures), 32)]
    engine_rate = rate(len(pictures), lambda: [at_work.logits(batch) for batch in batches])
    print(f"{decoding.cores()} cores, torch threads {torch.get_num_threads()}, {at_work.precision}")
    print(f"one image at a time {loop:.1f}; forward {forward:.1f}; with preprocessing {engine_rate:.1f}; decoding {decode:.1f}")
    # Both on the same cores: the time of one image is the sum of both times.
    together = 1 / (1 / forward + 1 / decode) if at_work.device.type == "cpu" else min(forward, decode)
    linked(args.source, names, scratch / "empty", 0)
    linked(args.source, names, scratch / "all", args.images)
    for place in [args.model, *([args.onnx] if args.onnx else [])]:
        if place.suffix == ".onnx":
            exported = portable.Portable(place, "auto", mirrored=False)
            print(f"{place}: {rate(len(pictures), lambda e=exported: [e.logits(b) for b in batches]):.1f} images/s in memory")
        start, _ = command(scratch / "empty", place)
        seconds, peak = command(scratch / "all", place)
        found = args.images / (seconds - start)
        print(
            f"{place}: {found:.1f} images/s ({found / together:.0%} of forward and decoding together, {found / loop:.1f} times "
            f"the loop), start {start:.1f} s, peak memory {peak:.0f} MiB",
            flush=True,
        )


def plain_loop(path: Path, paths: list[Path], frame: images.Frame) -> float:
    """What a short script does: open, transform, run, one image at a time, BatchNorm and memory layout as they come."""
    saved = model.load(path)
    network = saved.networks()[0].to(memory_format=torch.contiguous_format)

    def run() -> None:
        with torch.inference_mode():
            for place in paths:
                picture = opened(frame, place)
                if picture is not None:
                    network(preprocessing.to_input(picture[None], saved.preprocessing).contiguous())

    return rate(len(paths), run)


def rate(count: int, work: Callable[[], object]) -> float:
    """The better of two."""
    found = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        found.append(count / (time.perf_counter() - started))
    return max(found)


def opened(frame: images.Frame, path: Path) -> np.ndarray | None:
    try:
        return np.array(images.open_square(path, frame).pixels)
    except images.ImageFault:
        return None


def linked(source: Path, names: list[str], target: Path, count: int) -> None:
    target.mkdir()
    for index in range(count):
        (target / f"{index:07}{Path(names[index % len(names)]).suffix}").symlink_to(
            (source / names[index % len(names)]).absolute()
        )


def command(place: Path, with_model: Path) -> tuple[float, float]:
    """Seconds and peak memory in MiB of predict on a folder; a process of its own for each, so that peaks do not mix."""
    out = place.with_suffix(".csv")
    arguments = [sys.executable, "-m", "stages.predict", "--images", str(place), "--out", str(out), "--model", str(with_model)]
    program = (
        "import resource, subprocess, sys, time; t = time.perf_counter(); subprocess.run(sys.argv[1:], check=True, stdout=2); "
        "print(time.perf_counter() - t, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


if __name__ == "__main__":
    main()
