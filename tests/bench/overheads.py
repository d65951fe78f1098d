"""What a person waits for besides the training itself: stages that start, `dvc repro` without anything to do, the small stages.

    python -m tests.bench.overheads                     # in a project where `dvc repro` has run
    python -m tests.bench.overheads --rounds 5 --without-stages

Prints a table: seconds until a stage has imported what it needs, seconds of `dvc repro` on an unchanged project, and (from the
files that are there, into a temporary folder) of each stage as dvc.yaml runs it, with the share of stats, evaluate and predict
together in the time of train.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ("validate", "stats", "train", "evaluate", "predict")
LATER = {"train": "stages.lib.all_folds", "predict": "stages.lib.engine"}  # imported once the settings are read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", default="data/sample/images")
    parser.add_argument("--labels", default="data/sample/labels.txt")
    parser.add_argument("--new", default="data/sample/unlabelled", help="folder that predict tags")
    parser.add_argument("--without-stages", action="store_true", help="start-up and `dvc repro` alone")
    parser.add_argument("--without-dvc", action="store_true", help="no `dvc repro`")
    args = parser.parse_args()
    print(f"{'seconds (median and range)':<44} of {args.rounds} rounds")
    for stage in STAGES:
        program = f"import stages.{stage}, {LATER.get(stage, 'stages')}"
        show(f"start of {stage}", timed([sys.executable, "-c", program], args.rounds))
    if not args.without_dvc:
        show("dvc repro, nothing to do", timed(["dvc", "repro", "--quiet"], args.rounds))
    if not args.without_stages:
        with tempfile.TemporaryDirectory() as scratch:
            seconds = stages(Path(scratch), args)
        for stage, taken in seconds.items():
            show(stage, [taken])
        small = seconds["stats"] + seconds["evaluate"] + seconds["predict"]
        print(f"stats, evaluate and predict together: {small:.1f} s, {small / seconds['train']:.0%} of train")


def stages(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Seconds of each stage, run once, start-up included."""
    clean, metrics = ("--clean", folder / "clean"), ("--metrics", folder / "metrics")
    model, decision = ("--model", folder / "model.pth"), ("--decision", folder / "decision.json")
    frozen = ("--frozen", folder / "frozen.safetensors")
    out = ("--out", folder / "predictions.csv", "--unreadable", folder / "unreadable.csv")
    arguments = {
        "validate": ("--images", args.images, "--labels", args.labels, "--out", folder / "clean", *metrics),
        "stats": (*clean, *metrics),
        "train": (*clean, *metrics, *model, *frozen, "--checkpoint", folder / "checkpoint"),
        "evaluate": (*clean, *metrics, *model, *frozen, *decision, "--card", folder / "card.md"),
        "predict": ("--images", args.new, "--recursive", *model, *decision, *out),
    }
    found = {}
    for stage in STAGES:
        (found[stage],) = timed([sys.executable, "-m", f"stages.{stage}", *map(str, arguments[stage])], 1)
    return found


def timed(command: list[str], rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - started)
    return taken


def show(what: str, taken: list[float]) -> None:
    spread = f"{min(taken):.1f} - {max(taken):.1f}" if len(taken) > 1 else ""
    print(f"{what:<44} {statistics.median(taken):>6.1f}  {spread}", flush=True)


if __name__ == "__main__":
    main()
