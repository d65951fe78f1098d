"""Images per second and peak memory of validate, beside plain decoding with Pillow on the same cores.

    python -m tests.bench.validate data/sample/images --counts 1000,10000

Fills a temporary folder with noisy copies of a folder's pictures (noise, so that they are no duplicates), runs the
stage in a process of its own, and reads that process's peak memory from the operating system.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from stages.lib import decoding, folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--counts", default="", help="sizes of folders of noisy copies, beside the folder itself")
    args = parser.parse_args()
    names = folder.image_files(args.images)
    with tempfile.TemporaryDirectory() as scratch:
        report("the folder itself", args.images, names, Path(scratch))
    for count in [int(text) for text in args.counts.split(",") if text]:
        with tempfile.TemporaryDirectory() as scratch:
            copies = Path(scratch) / "images"
            copies.mkdir()
            list(decoding.in_order(partial(noisy_copy, args.images, names, copies), range(count)))
            report(f"{count} copies", copies, folder.image_files(copies), Path(scratch))


def noisy_copy(source: Path, names: list[str], target: Path, index: int) -> None:
    """A copy of at most 500 pixels a side under its own pattern of noise."""
    rng = np.random.default_rng(index)
    try:
        with Image.open(source / names[index % len(names)]) as opened:
            picture = opened.convert("RGB")
    except OSError:
        picture = Image.new("RGB", (400, 400))
    picture.thumbnail((500, 500))
    noise = Image.fromarray(rng.integers(0, 256, size=(12, 12, 3), dtype=np.uint8)).resize(picture.size)
    Image.blend(picture, noise, 0.6).save(target / f"{index:06}.jpg", quality=85)


def report(title: str, source: Path, names: list[str], scratch: Path) -> None:
    (scratch / "labels.txt").write_text("".join(f"{name} {index % 2}\n" for index, name in enumerate(names)))
    started = time.perf_counter()
    list(decoding.in_order(partial(plain_decode, source), names))
    plain = len(names) / (time.perf_counter() - started)
    out = ["--out", str(scratch / "clean"), "--metrics", str(scratch / "metrics")]
    command = [sys.executable, "-m", "stages.validate", "--images", str(source), "--labels", str(scratch / "labels.txt"), *out]
    seconds = []
    for _ in range(2):  # the second run finds every picture unchanged
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    first, again = (len(names) / value for value in seconds)
    print(
        f"{title}: {len(names)} images on {decoding.cores()} cores; Pillow alone {plain:.0f} images/s; validate {first:.0f}"
        f" ({seconds[0]:.1f} s), unchanged {again:.0f} ({seconds[1]:.1f} s); peak memory of all so far {peak:.0f} MiB",
        flush=True,
    )


def plain_decode(source: Path, name: str) -> None:
    try:
        with Image.open(source / name) as opened:
            opened.convert("RGB")
    except (OSError, SyntaxError):
        return


if __name__ == "__main__":
    main()
