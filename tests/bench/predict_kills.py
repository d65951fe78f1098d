"""Kill predict with SIGKILL at random moments until it is done, and compare the table with that of one quiet run.

    python -m tests.bench.predict_kills data/sample/images --images 400 --kills 20

Fills a temporary folder with links to a folder's pictures and 5 % broken files, in which it then tags.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stages.lib import files, folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench(args, Path(scratch))


def bench(args: argparse.Namespace, scratch: Path) -> None:
    fill(args.source, scratch / "images", args.images)
    started = time.monotonic()
    run(scratch, "quiet.csv").wait()
    quiet = time.monotonic() - started
    chance, kills, runs = random.Random(args.seed), 0, 0
    before = 0
    while True:
        process = run(scratch, "killed.csv")
        runs += 1
        if kills < args.kills and not ended_within(process, chance.uniform(0, 2.2 * quiet / args.kills) + startup(runs)):
            process.kill()
            kills += 1
        if process.wait() == 0:
            break
        parts = len(list(scratch.glob("killed.csv.parts/part-*")))
        assert parts >= before, "a part was lost"
        before = parts
    same = (scratch / "quiet.csv").read_bytes() == (scratch / "killed.csv").read_bytes()
    table = files.read_table(scratch / "killed.csv", "predict")
    failed = int((table["reason"] != "").sum())
    print(
        f"{args.images} files, {failed} broken; quiet run {quiet:.1f} s; {kills} kills in {runs} runs; tables identical: {same}; "
        f"rows {len(table)}, names twice: {int(table['image'].duplicated().sum())}; left over: "
        f"{sorted(path.name for path in scratch.iterdir() if path.name not in ('images', 'quiet.csv', 'killed.csv'))}"
    )
    if not same or kills < args.kills:
        sys.exit(1)


def fill(source: Path, target: Path, count: int) -> None:
    target.mkdir()
    names = folder.image_files(source)
    for index in range(count):
        place = target / f"{index:06}.jpg"
        if index % 20 == 7:
            place.write_bytes(b"<html></html>" if index % 40 == 7 else b"")
        else:
            place.symlink_to((source / names[index % len(names)]).absolute())


def run(scratch: Path, out: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "stages.predict", "--images", str(scratch / "images"), "--out", str(scratch / out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def startup(runs: int) -> float:
    """Every other kill comes after the seconds in which Python imports and the model is read, when parts are written."""
    return 4.0 * (runs % 2)


def ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


if __name__ == "__main__":
    main()
