"""Find every fault in the labels and the images, and decode what is usable, before a minute of training is spent.

    python -m stages.validate --images data/sample/images --labels data/sample/labels.txt

Reads   the labels file, the images folder, params.yaml (validate)
Writes  data/clean/labels.csv      one row per usable image: 1, 0 or NA per attribute
        data/clean/images.csv      the same rows: near-duplicate group, size, digest, perceptual hashes
        data/clean/pixels.npy      the same rows: the decoded pictures
        data/clean/rejects.csv     every fault with file, line, column, value, and what was done
        metrics/validation.json    counts; metrics/duplicates.csv, .png: near-duplicates and their labels
"""

from __future__ import annotations

import argparse
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import PIL

from stages.lib import decoding, duplicates, faults, files, folder, images, labels, params, pixels, report
from stages.lib.errors import UserError, run_stage
from stages.lib.faults import Fault

READS = ("validate",)
IMAGE_COLUMNS = ["image", "group", "width", "height", "animated", "sha256", "hash", "mirrored_hash", "crc32", "recipe"]


@dataclass(frozen=True)
class Picture:
    """One decoded image, or the fault that kept it from being decoded."""

    fault: images.ImageFault | None = None
    pixels: np.ndarray | None = None
    facts: dict[str, object] | None = None  # a row of images.csv, without group


def main() -> None:
    args = arguments()
    settings = params.load(args.params, READS).validate
    read = labels.read(args.labels)
    present = folder.image_files(args.images)
    found = read.faults + folder.name_faults(read.table, args.images, str(args.labels), present)
    table = usable_rows(read, args, found)

    frame = images.Frame(settings.side, settings.fit, settings.max_megapixels, settings.max_aspect)
    earlier = Earlier(args.out, recipe(frame), frame)
    kept: list[int] = []
    facts: list[dict[str, object]] = []
    pictures = decoding.in_order(partial(picture, args.images, frame, earlier), table["image"])
    stored = usable_pictures(pictures, table, present, args, found, kept, facts)
    # The new store takes its name only once the verdict is good: a run that fails leaves the earlier one.
    with files.replacing(args.out / "pixels.npy") as store:
        pixels.write(store, stored, settings.side)
        table = table.iloc[kept].reset_index(drop=True)
        found += one_class_faults(table, read.attributes, str(args.labels))
        summary = report.Validation(args.labels, read, table, found, settings.max_rejected)
        files.write_table(args.out / "rejects.csv", faults.table(found))
        if summary.verdict:
            raise UserError(f"{summary.verdict}\n{summary.text()}\n  every fault: {args.out / 'rejects.csv'}")
        groups = write_duplicates(args, store, pd.DataFrame(facts), table[read.attributes], settings.duplicate_distance)
    files.write_table(args.out / "labels.csv", table.drop(columns="line").astype(dict.fromkeys(read.attributes, "Int8")))
    files.write_table(args.out / "images.csv", pd.DataFrame(facts).assign(group=groups)[IMAGE_COLUMNS])
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


class Earlier:
    """Pixels of an earlier run, by digest of the file: an unchanged image is hashed, not decoded again.

    Used only where the earlier pixels were made by the same code, Pillow and settings (`recipe`).
    """

    def __init__(self, out: Path, made_by: str, frame: images.Frame) -> None:
        self.recipe = made_by
        self.frame = frame
        self.rows: dict[str, tuple[int, dict[str, object]]] = {}
        try:
            described = files.read_table(out / "images.csv", "validate")
            self.store = pixels.read(out / "pixels.npy")
            if set(described["recipe"]) == {made_by}:
                facts = described[IMAGE_COLUMNS].to_dict("records")
                self.rows = {row["sha256"]: (index, row) for index, row in enumerate(facts)}
        except (UserError, KeyError):
            self.rows = {}

    def find(self, path: Path) -> tuple[np.ndarray, dict[str, object]] | None:
        if not self.rows:
            return None
        found = self.rows.get(files.fingerprint(path))
        if found is None:
            return None
        index, facts = found
        # A kill between the writing of store and table leaves two that do not belong together.
        if index >= len(self.store) or zlib.crc32(self.store[index].tobytes()) != facts["crc32"]:
            return None
        images.check_size(int(facts["width"]), int(facts["height"]), self.frame)  # type: ignore[call-overload]
        return np.array(self.store[index]), dict(facts)


def recipe(frame: images.Frame) -> str:
    """Fingerprint of all that turns a file into pixels and hashes: code, libraries, side and fit."""
    code = [files.fingerprint(Path(str(module.__file__))) for module in (images, duplicates)]
    text = f"{PIL.__version__} {imagehash.__version__} {frame.side} {frame.fit} {code}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def picture(images_folder: Path, frame: images.Frame, earlier: Earlier, name: str) -> Picture:
    """Decode the image `name`, or take it from an earlier run."""
    path = images.inside(images_folder, name)
    assert path is not None  # usable_rows has set the others aside
    try:
        images.check_file(path)
        known = earlier.find(path)
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
    facts |= {"crc32": zlib.crc32(opened.pixels.tobytes()), "recipe": earlier.recipe}
    return Picture(pixels=opened.pixels, facts=facts)


def usable_pictures(
    pictures: Iterator[Picture],
    table: pd.DataFrame,
    present: list[str],
    args: argparse.Namespace,
    found: list[Fault],
    kept: list[int],
    facts: list[dict[str, object]],
) -> Iterator[np.ndarray]:
    """Yield the pixels of the images that opened; note their rows in `kept`, their facts, and the faults of all."""
    by_lower = {name.lower(): name for name in present}
    for row, (result, line, name) in enumerate(zip(pictures, table["line"], table["image"], strict=True)):
        place = (str(args.labels), int(line), "", faults.shown(name))
        if result.fault is not None:
            hint = folder.near_name(name, by_lower) if result.fault.kind == "missing_image" else ""
            message = f"'{faults.shown(name)}': {result.fault.reason}{hint}: row set aside"
            found.append(Fault(result.fault.kind, *place, message))
            continue
        assert result.pixels is not None
        assert result.facts is not None
        if result.facts["animated"]:
            found.append(Fault("animated", *place, f"'{faults.shown(name)}' is animated: its first frame is used"))
        kept.append(row)
        facts.append(result.facts)
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


def write_duplicates(
    args: argparse.Namespace, store_file: Path, described: pd.DataFrame, table: pd.DataFrame, distance: int
) -> np.ndarray:
    """Find near-duplicates, write how well their labels agree and a contact sheet; return the group of every row."""
    store = pixels.read(store_file)
    hashes = [[int(h, 16) for h in row] for row in described[["hash", "mirrored_hash"]].to_numpy()]
    linked = duplicates.pairs(store, np.array(hashes, dtype=np.uint64), list(described["sha256"]), distance)
    both, agree, expected = duplicates.agreement(table.to_numpy(float), linked)
    columns = {"attribute": list(table), "pairs": both, "agree": agree, "expected_by_chance": expected.round(2)}
    files.write_table(args.metrics / "duplicates.csv", pd.DataFrame(columns))
    groups = duplicates.groups(len(store), linked)
    report.duplicates_sheet(args.metrics / "duplicates.png", store, groups, list(described["image"]))
    return groups


if __name__ == "__main__":
    run_stage(main)
