"""Cost against the number of images: time per image and peak memory of each stage, for copies of a folder that are no duplicates.

    python -m tests.bench.size data/sample/images data/sample/labels.txt --counts 250,1000,4000
    python -m tests.bench.size IMAGES LABELS --set epochs=1 --set train.resolution=96

Every picture is written again and again, cropped, recoloured and with noise, until there are as many as asked for. Prints, per
stage, milliseconds per picture and peak memory in MiB of the stage and its workers; what the
start of a stage costs (a run on 24 pictures) is taken off the time, and stands in the first line. Time is that of the
processors, over all threads, since that of the wall depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from stages.lib import labels
from tests.bench.stage_runs import settings

STAGES = ("validate", "stats", "train", "evaluate", "predict")
START = 24  # pictures of the run that tells what a start costs; so few can still be split
REPEATS = 3  # of that run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--counts", default="250,1000,4000")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be given again")
    args = parser.parse_args()
    print(f"{'images':>7}" + "".join(f"{stage:>20}" for stage in STAGES) + "   ms per image, MiB", flush=True)
    start: dict[str, float] = {}
    for count in [START, *map(int, args.counts.split(","))]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            copies(args.images, args.labels, folder, count)
            cells = []
            for stage in STAGES:
                chosen = settings(folder, args.set, 0)
                seconds, memory = measured(stage, folder, chosen)
                if count == START:  # what is taken off everything below: the least of several
                    seconds = min([seconds, *(measured(stage, folder, chosen)[0] for _ in range(REPEATS - 1))])
                    start[stage] = seconds
                spent = (seconds - start[stage]) / (count - START) if count > START else seconds / count
                cells.append(f"{1000 * spent:>12.1f} {memory:>7.0f}")
        print(f"{count:>7}" + "".join(cells), flush=True)


def copies(images: Path, labels_file: Path, folder: Path, count: int) -> None:
    """`count` pictures with labels in `folder`; each later copy of a picture is another cut of it in other colours."""
    found = labels.read(labels_file)
    names = [name for name in found.table["image"] if (images / name).is_file()]
    rows = found.table.set_index("image")[found.attributes]
    (folder / "images").mkdir()
    chance = np.random.default_rng(0)
    lines = [" ".join(["image", *found.attributes])]
    while len(lines) <= count:
        name = names[(len(lines) - 1) % len(names)]
        try:
            with Image.open(images / name) as opened:
                picture = opened.convert("RGB")
        except OSError:
            names.remove(name)
            continue
        picture = changed(picture, chance) if len(lines) > len(names) else picture
        picture.save(folder / "images" / f"{len(lines)}.jpg", quality=90)
        cells = ["NA" if value != value else str(int(value)) for value in rows.loc[name].astype(float)]
        lines.append(" ".join([f"{len(lines)}.jpg", *cells]))
    (folder / "labels.txt").write_text("\n".join(lines) + "\n")


def changed(picture: Image.Image, chance: np.random.Generator) -> Image.Image:
    width, height = picture.size
    left, top = (int(chance.integers(0, side // 2)) for side in (width, height))
    part = picture.crop((left, top, left + width // 2, top + height // 2)).resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(part, dtype=float) * chance.uniform(0.6, 1.2, 3) + chance.normal(0, 12, (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def measured(stage: str, folder: Path, chosen: Path) -> tuple[float, float]:
    """Processor seconds of the stage and its peak memory in MiB, workers included."""
    clean, metrics = ("--clean", folder / "clean"), ("--metrics", folder / "metrics")
    model, decision = ("--model", folder / "model.pth"), ("--decision", folder / "decision.json")
    frozen = ("--frozen", folder / "frozen.safetensors")
    arguments = {
        "validate": ("--images", folder / "images", "--labels", folder / "labels.txt", "--out", folder / "clean", *metrics),
        "stats": (*clean, *metrics),
        "train": (*clean, *metrics, *model, *frozen, "--checkpoint", folder / "checkpoint"),
        "evaluate": (*clean, *metrics, *model, *frozen, *decision, "--card", folder / "card.md"),
        "predict": ("--images", folder / "images", *model, *decision, "--out", folder / "tags.csv"),
    }
    before = os.times()
    running = subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}", *map(str, arguments[stage]), "--params", str(chosen)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = [0.0]
    watching = threading.Thread(target=watch, args=(running, peak))
    watching.start()
    if running.wait():
        raise SystemExit(f"{stage} failed in {folder}")
    watching.join()
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, peak[0]


def watch(running: subprocess.Popen, peak: list[float]) -> None:
    """Keep the largest sum of what the process and its children have for themselves."""
    while running.poll() is None:
        family = [running.pid, *children(running.pid)]
        peak[0] = max(peak[0], sum(map(own_memory, family)))
        time.sleep(0.05)


def children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def own_memory(process: int) -> float:
    """MiB that no other process shares; of a file that is read through the cache nothing."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


if __name__ == "__main__":
    main()
