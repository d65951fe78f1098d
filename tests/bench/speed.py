"""Speed of training, evaluation and prediction, beside the reference loop and what the machine's network alone does.

    make bench                                          # or: python -m tests.bench.speed --out build/bench.json
    python -m tests.bench.speed --images FOLDER --count 480 --rounds 3

Prints one table and writes it as JSON. Each of reference, ours and limit (tests/bench/contenders.py) has a process of its
own; rounds are interleaved, so that what else the machine does meets all of them. Weights are random: speed is the same.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from stages.lib import decoding, files, folder, params
from tests.bench.contenders import CONTENDERS, Measures, Spec, flops_per_image, matrix_product_rate

NETWORKS = {"resnet50": ("layer3", 224, 16), "tf_efficientnet_lite0": ("layer4", 192, 16)}
WARM = 2  # batches that each contender works through before it is timed: caches, worker processes, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=Path("data/sample/images"), help="folder of pictures")
    parser.add_argument("--count", type=int, default=96, help="pictures of an epoch, repeated where the folder has fewer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", choices=NETWORKS, action="append", help="only this one; may be given again")
    parser.add_argument("--only", action="append", help="train, evaluate or predict alone; may be given again")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="strengths of the augmentation")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    args = parser.parse_args()
    found = folder.image_files(args.images)
    paths = [args.images / found[index % len(found)] for index in range(args.count)]
    strength = params.load(args.params, ("augment",)).augment
    report: dict[str, Any] = {"machine": machine(), "images": str(args.images), "count": args.count, "rounds": args.rounds}
    print("  ".join(f"{name} {value}" for name, value in report["machine"].items()), flush=True)
    rows: list[dict[str, Any]] = []
    for backbone in args.backbone or NETWORKS:
        with tempfile.TemporaryDirectory() as scratch:
            spec = Spec(backbone, *NETWORKS[backbone], paths, Path(scratch), strength)
            rows += measured(spec, args.rounds, args.only)
    report["rows"] = rows
    files.write_json(args.out, report)
    print(table(rows))
    print(f"images per second, median and range of {args.rounds} interleaved rounds of {args.count}; also in {args.out}")


def machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "torchvision": torchvision.__version__}
    rate = f"{matrix_product_rate() / 1e9:.0f} GFLOP/s"
    return {"cores": decoding.cores(), "gpu": gpu, **versions, "timm": timm.__version__, "matrix product": rate}


def measured(spec: Spec, rounds: int, only: list[str] | None) -> list[dict[str, Any]]:
    """One row per contender and measure, of those that begin with a word of `only`."""
    context = multiprocessing.get_context("spawn")
    lines: dict[str, Connection] = {}
    for name in CONTENDERS:
        lines[name], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, name, spec, only)).start()
    measures = {name: line.recv() for name, line in lines.items()}  # when it is ready
    seconds: dict[tuple[str, str], list[float]] = {}
    waited: list[float] = []
    for turn in range(rounds):
        for name, line in lines.items():
            for measure in measures[name]:
                line.send(measure)
                taken, answer = line.recv()
                seconds.setdefault((measure, name), []).append(taken)
                waited += [answer] if answer is not None else []
                print(f"  round {turn + 1}: {measure:<23} {name:<10} {rate(spec, name, taken):>7.1f} images/s", flush=True)
    for line in lines.values():
        line.send(None)
    rows = [row(spec, measure, name, taken) for (measure, name), taken in sorted(seconds.items())]
    gflops, best = flops_per_image(spec) / 1e9, matrix_product_rate() / 1e9
    for entry in rows:
        if entry["what"] == "train":
            entry["share_of_matrix_product"] = round(entry["median"] * gflops / best, 3)
        if (entry["what"], entry["who"]) == ("train", "ours"):
            entry["waited_for_data"] = round(statistics.median(waited), 4)
    return rows


def row(spec: Spec, measure: str, name: str, taken: list[float]) -> dict[str, Any]:
    rates = [rate(spec, name, value) for value in taken]
    title = f"{spec.backbone} {spec.freeze} {spec.resolution} px, batch {spec.batch}"
    numbers = {"median": statistics.median(rates), "low": min(rates), "high": max(rates)}
    return {"network": title, "what": measure, "who": name, **{key: round(value, 2) for key, value in numbers.items()}}


def rate(spec: Spec, name: str, seconds: float) -> float:
    count = len(spec.paths)
    return (count // spec.batch * spec.batch if name == "limit" else count) / seconds


def serve(line: Connection, name: str, spec: Spec, only: list[str] | None) -> None:
    """Prepare, say what can be measured, and measure what is asked for, until None comes."""
    multiprocessing.set_start_method("fork", force=True)  # for the loaders' workers, as in a process that nobody spawned
    few = replace(spec, paths=spec.paths[: WARM * spec.batch], folder=Path(tempfile.mkdtemp(dir=spec.folder)))
    for work in chosen(few, name, only).values():
        work()
    own = chosen(spec, name, only)
    line.send(list(own))
    while (measure := line.recv()) is not None:
        started = time.perf_counter()
        answer = own[measure]()
        line.send((time.perf_counter() - started, answer if isinstance(answer, float) else None))


def chosen(spec: Spec, name: str, only: list[str] | None) -> Measures:
    return {what: work for what, work in CONTENDERS[name](spec).items() if not only or what.split()[0] in only}


def table(rows: list[dict[str, Any]]) -> str:
    """Every row with its speed relative to the reference and to the limit."""
    rate = {(entry["network"], entry["what"].split(" ")[0], entry["who"]): entry["median"] for entry in rows}
    lines = [f"{'network':<52} {'what':<23} {'who':<10} {'images/s':>9} {'range':>17} {'of limit':>9} {'x reference':>12}"]
    for entry in rows:
        what = entry["what"].split(" ")[0]
        top = rate.get((entry["network"], "evaluate" if what == "predict" else what, "limit"))
        base = rate.get((entry["network"], what, "reference"))
        spread = f"{entry['low']:.1f} - {entry['high']:.1f}"
        of_limit = f"{entry['median'] / top:.0%}" if top else ""
        times = f"{entry['median'] / base:.2f}" if base else ""
        start = f"{entry['network']:<52} {entry['what']:<23} {entry['who']:<10} {entry['median']:>9.1f} {spread:>17}"
        lines.append(f"{start} {of_limit:>9} {times:>12}")
        if "waited_for_data" in entry:
            lines.append(f"{'':<52} {'':<23} waited for data {entry['waited_for_data']:.1%} of the time")
        if "share_of_matrix_product" in entry:
            share = entry["share_of_matrix_product"]
            lines.append(f"{'':<52} {'':<23} FLOPs of the unfolded step: {share:.0%} of the matrix product's rate")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
