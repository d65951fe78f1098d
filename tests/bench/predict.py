"""Images per second and peak memory of predict, beside its parts: a plain loop, the forward pass alone, decoding alone.

    python -m tests.bench.predict FOLDER --images 2000 --memory 1000,20000 --onnx models/model.onnx

Fills a temporary folder with links to a folder's pictures. The measures take turns; medians and ranges are printed:

    loop      what a short script does: Image.open, torchvision's transforms, the network as it is, one image at a time
    forward   the network as predict runs it (a batch per core) on tensors in memory
    decoding  opening files alone, on all cores
    together  the last two for equally many pictures, at the same time on the same cores
    predict   the command, with its start subtracted (that of an empty folder)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from stages.lib import decoding, engine, folder, images, memory, model_file, portable, preprocessing
from stages.lib.blending import Blended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--sample", type=int, default=256, help="pictures for forward pass and decoding; a quarter for the loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="", help="sizes of folders whose peak memory is compared")
    parser.add_argument("--model", type=Path, default=Path("models/model.pth"))
    parser.add_argument("--onnx", type=Path)
    args = parser.parse_args()
    memory.keep_freed()
    names = folder.image_files(args.source)
    with tempfile.TemporaryDirectory() as scratch:
        if args.images:
            speeds(args, names, Path(scratch))
        for count in [int(text) for text in args.memory.split(",") if text]:
            linked(args.source, names, Path(scratch) / f"m{count}", count)
            seconds, peak = command(Path(scratch) / f"m{count}", args.model)
            print(f"{count:>6} images: peak memory {peak:.0f} MiB, {count / seconds:.1f} images/s with start", flush=True)


def speeds(args: argparse.Namespace, names: list[str], scratch: Path) -> None:
    paths = [args.source / names[index % len(names)] for index in range(args.sample)]
    linked(args.source, names, scratch / "empty", 0)
    linked(args.source, names, scratch / "all", args.images)
    loop = plain_loop(args.model, paths[: max(16, args.sample // 4)])  # before the engines take PyTorch's threads
    found: dict[str, list[float]] = {"loop": loop(args.rounds)}
    print(f"{decoding.cores()} cores; images/s, median (range) of {args.rounds} rounds")
    for place in [args.model, *([args.onnx] if args.onnx else [])]:
        known = measures(place, paths)
        found |= {name: [] for name in (*known, "predict", "start", "peak")}
        for _ in range(args.rounds):
            for name, measure in known.items():
                found[name].append(measure())
            start, _ = command(scratch / "empty", place)
            seconds, peak = command(scratch / "all", place)
            for name, value in (("predict", args.images / (seconds - start)), ("start", start), ("peak", peak)):
                found[name].append(value)
        print(place)
        for name, values in found.items():
            print(f"  {name:<9} {median(values):7.1f} ({min(values):.1f} to {max(values):.1f})")
        speed, together = median(found["predict"]), median(found["together"])
        print(f"  predict: {speed / together:.0%} of together, {speed / median(found['loop']):.2f} times the loop", flush=True)


def measures(place: Path, paths: list[Path]) -> dict[str, Callable[[], float]]:
    """Forward pass, decoding, and both at once, by name; each returns images per second."""
    cores = decoding.cores()
    run: Callable[[int], object]
    if place.suffix == ".onnx":
        exported = portable.Portable(place, "auto", mirrored=False, lanes=cores)
        how, size = exported.preprocessing, exported.batch_size
        given = {portable.INPUT: np.zeros((size, 3, how.resolution, how.resolution), dtype=np.float32)}
        lanes, run = exported.lanes, lambda _: exported._session.run([portable.OUTPUT], given)
    else:
        at_work = engine.Engine(place, "auto", bf16=True, mirrored=False, lanes=cores)
        how, size, lanes = at_work.preprocessing, at_work.batch_size, at_work.lanes
        inputs = preprocessing.to_input(np.zeros((size, how.side, how.side, 3), dtype=np.uint8), how, at_work.device)

        def run(_: int) -> object:
            with torch.inference_mode():
                return [network(inputs).cpu() for network in at_work.networks]

    frame = images.Frame(how.side, how.fit, 120, 20)
    batches = -(-len(paths) // size)

    def forward() -> None:
        deque(decoding.in_order(run, range(batches), lanes), maxlen=0)

    def decode() -> None:
        deque(decoding.in_order(partial(opened, frame), paths), maxlen=0)

    def both() -> None:
        beside = threading.Thread(target=decode)
        beside.start()
        forward()
        beside.join()

    count = len(paths)
    return {
        "forward": lambda: rate(batches * size, forward),
        "decoding": lambda: rate(count, decode),
        "together": lambda: rate(count, both),
    }


def plain_loop(path: Path, paths: list[Path]) -> Callable[[int], list[float]]:
    """Images per second of so many rounds, at PyTorch's own number of threads."""
    saved = model_file.load(path)
    how = saved.preprocessing
    network = saved.networks()[0]
    if isinstance(network, Blended):  # who writes a short script has one network, and no trunk to share
        network = network.tuned[0]
    network = network.to(memory_format=torch.contiguous_format).eval()
    steps = [transforms.Resize((how.resolution, how.resolution)), transforms.ToTensor(), transforms.Normalize(how.mean, how.std)]
    transform = transforms.Compose(steps)

    def run() -> None:
        with torch.inference_mode():
            for place in paths:
                with Image.open(place) as picture:
                    network(transform(picture.convert("RGB"))[None])

    return lambda rounds: [rate(len(paths), run) for _ in range(rounds)]


def rate(count: int, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


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
    arguments += ["--decision", str(with_model.with_name("decision.json"))]
    program = (
        "import resource, subprocess, sys, time; t = time.perf_counter(); subprocess.run(sys.argv[1:], check=True, stdout=2); "
        "print(time.perf_counter() - t, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


if __name__ == "__main__":
    main()
