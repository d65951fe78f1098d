"""Tag images: a folder, a list or single files into a table, or one image on the terminal.

    python -m stages.predict --images data/sample/unlabelled --out data/predictions.csv
    python -m stages.predict --image photo.jpg --threshold 0.5 --threshold logo=0.8 --explain why.png
    find /photos -name '*.jpg' -print0 | python -m stages.predict --list - --out tags.parquet

Reads   models/model.pth and models/decision.json, or a model.onnx, which holds both; the images;
        params.yaml (predict, train.device, validate.max_*)
Writes  --out         per image the probabilities and decisions, or why it could not be read (.csv, .jsonl, .parquet)
        --unreadable  the files that could not be read, with the reason
        <out>.parts/  while it runs; after a kill the same command carries on with what is there

Exit codes: 0 done (files that can't be read stop nothing), 1 an error, 2 a wrong command line, 3 done, but with --strict
and files that could not be read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from stages.lib import answers, files, images, memory, params, shards, sources, tables, tagging
from stages.lib.errors import UserError, run_stage
from stages.lib.faults import shown
from stages.lib.parts import Parts, cut
from stages.lib.predictor import SHORT, Predictor, Threshold
from stages.lib.summary import Summary

READS = (
    "predict.batch_size",
    "predict.workers",
    "predict.tta",
    "predict.bf16",
    "train.device",
    "validate.max_megapixels",
    "validate.max_aspect",
)
NOT_ALL_READ = 3  # exit code


def main() -> None:
    args = arguments()
    check_outputs(args)
    if args.merge:
        merge(args)
        return
    memory.keep_freed()
    settings = params.load(args.params, READS)
    workers = settings.predict.workers or shards.own_cores()
    predictor = Predictor(args.model, args.decision, args.threshold, settings, lanes=workers if args.out else 0)
    how = predictor.preprocessing
    frame = images.Frame(how.side, how.fit, settings.validate.max_megapixels, settings.validate.max_aspect)
    failed = tag(args, predictor, frame, settings, workers) if args.out else tell(args, predictor, frame)
    if failed and args.strict:
        sys.exit(NOT_ALL_READ)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--images", type=Path, help="folder of images; every file in it is tried")
    given.add_argument("--image", nargs="+", action="extend", help="one image or several; without --out answered on the terminal")
    given.add_argument("--list", help="text file with a path a line, or .csv with a column 'image'; - for standard input")
    given.add_argument("--merge", action="store_true", help="put the table together from the files of all shards beside --out")
    parser.add_argument("--recursive", action="store_true", help="with --images: subfolders too")
    parser.add_argument("--threshold", type=threshold, action="append", default=[], help="P for all attributes, NAME=P for one")
    parser.add_argument("--out", type=Path, help=f"table, {', '.join(tables.ENDINGS)}; data/predictions.csv but for --image")
    parser.add_argument("--unreadable", type=Path, help="also list the files that could not be read here, as CSV")
    parser.add_argument("--explain", type=Path, help="with one --image: a PNG that shows where the network looks")
    parser.add_argument("--json", action="store_true", help="answer in JSON, a line per --image, or the summary of the table")
    parser.add_argument("--strict", action="store_true", help=f"exit code {NOT_ALL_READ} where a file could not be read")
    parser.add_argument("--restart", action="store_true", help="drop the results of an unfinished run")
    parser.add_argument("--shard", type=shard, help="i/n: only the i-th of n shares; torchrun sets it by itself")
    parser.add_argument("--model", type=Path, default=Path("models/model.pth"))
    parser.add_argument("--decision", type=Path, default=Path("models/decision.json"))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    args = parser.parse_args()
    if args.explain and (args.out or not args.image or len(args.image) != 1):
        parser.error("--explain goes with one --image, without --out")
    if not args.image and not args.out:
        args.out = Path("data/predictions.csv")
    return args


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability from 0 to 1")
    return value


def threshold(text: str) -> Threshold:
    name, given, value = text.rpartition("=")
    return (name if given else None), share(value)


def shard(text: str) -> shards.Shard:
    try:
        return shards.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_outputs(args: argparse.Namespace) -> None:
    """Raise UserError for what can't be written, before a model is loaded or an image read."""
    if args.out:
        tables.check_ending(args.out)
    if args.explain and args.explain.suffix.lower() != ".png":
        raise UserError(f"--explain {args.explain}: its ending must be .png")
    if args.explain and args.model.suffix.lower() == ".onnx":
        raise UserError("--explain needs gradients, which an ONNX model does not give; use --model models/model.pth")
    for name in args.image or ():
        if name and os.path.isdir(name):
            raise UserError(f"--image {shown(name, 4096)} is a folder; tag the files in it with --images")
    places = [place for place in (args.out, args.unreadable, args.explain) if place]
    if len({os.path.abspath(place) for place in places}) < len(places):
        raise UserError(f"{args.out}: --out and --unreadable must be two files")
    for place in places:
        files.check_writable(place)


def tell(args: argparse.Namespace, predictor: Predictor, frame: images.Frame) -> int:
    """Answer on the terminal, image by image; the number of those that could not be read. One alone is an error."""
    failed = 0
    several = len(args.image) > 1
    for name in args.image:
        picture = tagging.pixels_or_reason(Path(), frame, name)
        if isinstance(picture, str):
            if not several:
                raise UserError(f"--image {shown(name, 4096) or repr(name)}: {picture}")
            failed += 1
            unread = {"image": shown(name, 4096), "reason": picture}
            print(json.dumps(unread, ensure_ascii=False) if args.json else f"{unread['image']}\ncould not be read: {picture}\n")
            continue
        probabilities = predictor.probabilities(np.stack([picture]))[0]
        known = predictor.attributes, probabilities, predictor.thresholds
        if args.json:
            print(json.dumps(answers.as_json(name, predictor.short, *known), ensure_ascii=False))
        else:
            print(f"{shown(name, 4096)}\n{answers.lines(*known)}\n" if several else answers.lines(*known))
        if args.explain:
            explain(args.explain, predictor, picture, name, probabilities)
    return failed


def explain(path: Path, predictor: Predictor, picture: np.ndarray, name: str, probabilities: np.ndarray) -> None:
    from stages.lib import explanation
    from stages.lib.engine import Engine

    assert isinstance(predictor.backend, Engine)  # check_outputs has refused others
    explanation.panel(path, predictor.backend, picture, name, probabilities, predictor.thresholds)


def tag(args: argparse.Namespace, predictor: Predictor, frame: images.Frame, settings: params.Chosen, workers: int) -> int:
    """Tag all images into the table, or this shard's into its file; the number of those that could not be read."""
    own = args.shard or shards.of_environment()
    source = read_source(args, own)
    batch_size = predictor.backend.batch_size if settings.predict.batch_size == "auto" else settings.predict.batch_size
    run = tagging.record(predictor, source, frame, batch_size, settings.predict.tta)
    start, end = own.bounds(len(source.names), batch_size)
    ending = ".parts" if own == shards.WHOLE else f".parts-{own.index}-of-{own.count}"
    parts = Parts(args.out.with_name(args.out.name + ending), run, cut(start, end, batch_size), args.restart)
    try:
        tagging.fill(parts, predictor, source, frame, batch_size, workers)
        summary = Summary(predictor.attributes)
        if own == shards.WHOLE:
            title, path = source.title, args.out
            write(args, predictor.attributes, predictor.short, parts.rows(), summary)
        else:
            del run["folder of images"]  # other machines may have it elsewhere
            title = f"{source.title}, shard {own.index} of {own.count}"
            path = shards.write(args.out, own, run, summary.counted(parts.rows()))
        parts.remove()
    finally:
        parts.close()
    report(args, summary, title, path, predictor.short)
    return summary.failed


def read_source(args: argparse.Namespace, own: shards.Shard) -> sources.Source:
    if args.list == sources.STDIN and own != shards.WHOLE and args.shard is None:
        raise UserError("--list - under torchrun: the processes would share one standard input; write the list to a file")
    if args.images:
        return sources.of_folder(args.images, args.recursive, [place for place in (args.out, args.unreadable) if place])
    return sources.of_images(args.image) if args.image else sources.of_list(args.list)


def merge(args: argparse.Namespace) -> None:
    """The table of all shards; their files stay, since other machines' work is in them."""
    run, found = shards.found(args.out)
    summary = Summary(run["attributes"])
    model = run["model"][:SHORT]
    write(args, run["attributes"], model, shards.rows(found), summary)
    report(args, summary, f"{len(found)} shards", args.out, model)
    if summary.failed and args.strict:
        sys.exit(NOT_ALL_READ)


def write(args: argparse.Namespace, attributes: list[str], model: str, rows: Iterable[tables.Row], summary: Summary) -> None:
    unread: list[tables.Row] = []

    def noted(row: tables.Row) -> tables.Row:
        if row.reason and args.unreadable:
            unread.append(row)
        return row

    for place in (args.out, args.unreadable):
        if place:
            files.remove_leftovers(place)
    tables.write(args.out, attributes, model, map(noted, summary.counted(rows)))
    if args.unreadable:
        listed = [(row.image, row.reason) for row in unread]
        files.write_table(args.unreadable, pd.DataFrame(listed, columns=["image", "reason"]))


def report(args: argparse.Namespace, summary: Summary, title: str, written: Path, model: str) -> None:
    print(json.dumps(summary.as_json(str(written), model)) if args.json else summary.text(title, str(written)))


if __name__ == "__main__":
    run_stage(main)
