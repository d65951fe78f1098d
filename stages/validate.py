"""Find every fault in the labels and the images, and decode what is usable, before a minute of training is spent.

    python -m stages.validate --images data/sample/images --labels data/sample/labels.txt

Reads   the labels file, the images folder, params.yaml (validate)
Writes  data/clean/labels.csv      one row per usable image: 1, 0 or NA per attribute
        data/clean/images.csv      the same rows: near-duplicate group, size, digest, perceptual hashes
        data/clean/pairs.csv       every pair of near-duplicates
        data/clean/pixels.npy      the same rows: the decoded pictures
        data/clean/rejects.csv     every fault with file, line, column, value, and what was done
        metrics/validation.json    counts; metrics/duplicates.csv, .png: near-duplicates and their labels
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from stages.lib import decoding, duplicates, earlier, faults, files, folder, images, labels, params, pixels, report
from stages.lib.errors import UserError, run_stage
from stages.lib.faults import Fault

READS = ("validate",)
FACTS = ["image", "group", "width", "height", "animated", "sha256", "hash", "mirrored_hash", "crc32", "recipe", "compared"]


@dataclass(frozen=True)
class Picture:
    """One decoded image, or its place in the earlier store, or the fault that kept it from being decoded."""

    fault: images.ImageFault | None = None
    pixels: np.ndarray | int | None = None
    facts: dict[str, object] | None = None  # a row of images.csv, without group


def main() -> None:
    args = arguments()
    settings = params.load(args.params, READS).validate
    read = labels.read(args.labels)
    present = folder.image_files(args.images)
    found = read.faults + folder.name_faults(read.table, args.images, str(args.labels), present)
    table = usable_rows(read, args, found)

    frame = images.Frame(settings.side, settings.fit, settings.max_megapixels, settings.max_aspect)
    before = earlier.Earlier(args.out, earlier.recipe(frame), frame)
    pictures = decoding.in_order(partial(picture, args.images, frame, before), table["image"])
    usable = Usable(args, present)
    # The new store takes its name only once the verdict is good: a run that fails leaves the earlier one.
    with before.store_of(usable.taken(pictures, table), len(table)) as store:
        table = table.iloc[usable.rows].reset_index(drop=True)
        found += usable.faults + one_class_faults(table, read.attributes, str(args.labels))
        summary = report.Validation(args.labels, read, table, found, settings.max_rejected)
        files.write_table(args.out / "rejects.csv", faults.table(found))
        if summary.verdict:
            raise UserError(f"{summary.verdict}\n{summary.text()}\n  every fault: {args.out / 'rejects.csv'}")
        described = pd.DataFrame(usable.facts)
        linked = near_duplicates(store, described, settings.duplicate_distance, before)
        groups = write_duplicates(args, store, list(described["image"]), table[read.attributes], linked)
    files.write_table(args.out / "labels.csv", table.drop(columns="line").astype(dict.fromkeys(read.attributes, "Int8")))
    compared = earlier.comparison(args.out / "pairs.csv", settings.duplicate_distance)
    files.write_table(args.out / "images.csv", described.assign(group=groups, compared=compared)[FACTS])
    files.write_json(args.metrics / "validation.json", summary.figures(groups))
    print(summary.text(groups))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--labels", type=Path, required=True, help="labels.txt or .csv: image, then 1, 0 or NA per attribute")
    parser.add_argument("--out", type=Path, default=Path("data/clean"), help="folder for tables and pixels")
    parser.add_argument("--metrics", type=Path, default=Path("metrics"), help="folder for the figures")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    return parser.parse_args()


def usable_rows(read: labels.Labels, args: argparse.Namespace, found: list[Fault]) -> pd.DataFrame:
    """Rows whose name stays in the folder and that carry a known label; the others are added to `found`."""
    in_folder = read.table["image"].map(lambda name: images.inside(args.images, name) is not None).to_numpy(bool)
    known = read.table[read.attributes].notna().any(axis=1).to_numpy()
    for line, name in read.table.loc[in_folder & ~known, ["line", "image"]].itertuples(index=False):
        if name in read.damaged:
            kind, message = "labels_unusable", f"'{faults.shown(name)}' has no usable label left: row set aside"
        else:
            kind, message = "no_known_label", f"'{faults.shown(name)}' has no known label: nothing to learn from, left out"
        found.append(Fault(kind, str(args.labels), int(line), "", faults.shown(name), message))
    return read.table[in_folder & known].reset_index(drop=True)


def picture(images_folder: Path, frame: images.Frame, before: earlier.Earlier, name: str) -> Picture:
    """Decode the image `name`, or take it from an earlier run."""
    path = images.inside(images_folder, name)
    assert path is not None  # usable_rows has set the others aside
    try:
        images.check_file(path)
        known = before.find(path, name)
        if known:
            return Picture(pixels=known[0], facts=known[1] | {"image": name})
        opened = images.open_square(path, frame)
    except images.ImageFault as fault:
        return Picture(fault=fault)
    except OSError as error:  # the file could be looked at, but not read
        return Picture(fault=images.ImageFault("unreadable_file", f"can't be read: {error.strerror}"))
    plain, mirrored = duplicates.signature(opened.pixels)
    facts = {"image": name, "width": opened.width, "height": opened.height, "animated": int(opened.animated)}
    facts |= {"sha256": opened.digest, "hash": f"{plain:016x}", "mirrored_hash": f"{mirrored:016x}"}
    facts |= {"crc32": zlib.crc32(opened.pixels.tobytes()), "recipe": before.recipe}
    return Picture(pixels=opened.pixels, facts=facts)


class Usable:
    """The images that opened: their `rows` in the table, their `facts`; and the `faults` of all."""

    def __init__(self, args: argparse.Namespace, present: list[str]) -> None:
        self.labels_file, self.by_lower = str(args.labels), {name.lower(): name for name in present}
        self.rows: list[int] = []
        self.facts: list[dict[str, object]] = []
        self.faults: list[Fault] = []

    def taken(self, pictures: Iterator[Picture], table: pd.DataFrame) -> Iterator[np.ndarray | int]:
        """Yield the pixels (or their earlier place) of each image of `table` that opened; `pictures` is in its order."""
        for row, (result, line, name) in enumerate(zip(pictures, table["line"], table["image"], strict=True)):
            place = (self.labels_file, int(line), "", faults.shown(name))
            if result.fault is not None:
                hint = folder.near_name(name, self.by_lower) if result.fault.kind == "missing_image" else ""
                message = f"'{faults.shown(name)}': {result.fault.reason}{hint}: row set aside"
                self.faults.append(Fault(result.fault.kind, *place, message))
                continue
            assert result.pixels is not None
            assert result.facts is not None
            if result.facts["animated"]:
                message = f"'{faults.shown(name)}' is animated: its first frame is used"
                self.faults.append(Fault("animated", *place, message))
            self.rows.append(row)
            self.facts.append(result.facts)
            yield result.pixels


def one_class_faults(table: pd.DataFrame, attributes: list[str], labels_file: str) -> list[Fault]:
    """Attributes that have no known positive or no known negative among the usable rows."""
    targets = table[attributes].to_numpy(float)
    found = []
    for name, positive, negative in zip(attributes, labels.positives(targets), labels.negatives(targets), strict=True):
        if positive == 0 or negative == 0:
            message = f"attribute '{faults.shown(name)}' has {positive} positives and {negative} negatives: it can't be learned"
            found.append(Fault("one_class_only", labels_file, 0, name, f"{positive} to {negative}", message))
    return found


def near_duplicates(store_file: Path, described: pd.DataFrame, distance: int, before: earlier.Earlier) -> np.ndarray:
    """Pairs of near-duplicates, shape (n_pairs, 2); files that an earlier run has compared are not compared again."""
    hashes = [[int(h, 16) for h in row] for row in described[["hash", "mirrored_hash"]].to_numpy()]
    signatures = np.array(hashes, dtype=np.uint64)
    return duplicates.pairs(pixels.read(store_file), signatures, list(described["sha256"]), distance, before.settled(distance))


def write_duplicates(
    args: argparse.Namespace, store_file: Path, names: list[str], labelled: pd.DataFrame, linked: np.ndarray
) -> np.ndarray:
    """Write the pairs, how well their labels agree, and a contact sheet; return the group of every row."""
    pairs = pd.DataFrame({"image": [names[one] for one, _ in linked], "copy": [names[other] for _, other in linked]})
    files.write_table(args.out / "pairs.csv", pairs)
    both, agree, expected = duplicates.agreement(labelled.to_numpy(float), linked)
    columns = {"attribute": list(labelled), "pairs": both, "agree": agree, "expected_by_chance": expected.round(2)}
    files.write_table(args.metrics / "duplicates.csv", pd.DataFrame(columns))
    groups = duplicates.groups(len(names), linked)
    report.duplicates_sheet(args.metrics / "duplicates.png", pixels.read(store_file), groups, names)
    return groups


if __name__ == "__main__":
    run_stage(main)
