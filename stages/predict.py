"""Tag new images: a folder into a table, or one image on the terminal.

    python -m stages.predict --images data/sample/unlabelled --out data/predictions.csv
    python -m stages.predict --image photo.jpg --threshold 0.5

Reads   models/model.pth, models/decision.json, the images, params.yaml (predict, train.device, validate.max_*)
Writes  data/predictions.csv   per image and attribute the probability and the decision
        data/unreadable.csv    the files that could not be read, with the reason
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from stages.lib import decisions, decoding, files, folder, images, inference, memory, params
from stages.lib import model as models
from stages.lib.errors import UserError, run_stage
from stages.lib.faults import shown

READS = ("predict.batch_size", "predict.workers", "train.device", "validate.max_megapixels", "validate.max_aspect")


class Predictor:
    """The members of a model and the decision; `probabilities` is the mean of the members' log-odds, calibrated."""

    def __init__(self, model: Path, decision: Path, threshold: float | None, device: str) -> None:
        self.saved = models.load(model)
        self.networks = self.saved.networks()
        self.device = inference.device_of(device)
        attributes, n_members = self.saved.attributes, len(self.networks)
        self.decision, self.log_pos_weight = decisions.read(decision, files.fingerprint(model), attributes, n_members)
        self.thresholds = self.decision.threshold if threshold is None else np.full(len(attributes), threshold)

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures (n, side, side, 3) uint8 -> probabilities (n, n_attributes)."""
        log_odds = [
            decisions.corrected(
                inference.logits(network.to(self.device), pictures, range(len(pictures)), self.saved.preprocessing, self.device),
                self.log_pos_weight[index],
            )
            for index, network in enumerate(self.networks)
        ]
        return decisions.probabilities(self.decision.calibrated(np.mean(log_odds, axis=0)))


def main() -> None:
    args = arguments()
    memory.keep_freed()
    settings = params.load(args.params, READS)
    predictor = Predictor(args.model, args.decision, args.threshold, settings.train.device)
    how = predictor.saved.preprocessing
    frame = images.Frame(how.side, how.fit, settings.validate.max_megapixels, settings.validate.max_aspect)
    if args.image:
        print(one_image(predictor, args.image, frame))
        return
    names = folder.all_files(args.images)  # what is no image is listed as such, not passed over
    table, unreadable = whole_folder(predictor, args.images, names, frame, settings.predict)
    files.write_table(args.out, table)
    files.write_table(args.unreadable, unreadable)
    print(f"{args.images}: {len(names)} files, {len(names) - len(unreadable)} tagged, {len(unreadable)} could not be read")
    for name, reason in unreadable.head(5).itertuples(index=False):
        print(f"  {name}: {reason}")
    print(counts(table, predictor.saved.attributes))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--images", type=Path, help="folder of new images, read with its subfolders")
    given.add_argument("--image", type=Path, help="one image, answered on the terminal")
    parser.add_argument("--threshold", type=share, help="for all attributes, instead of those of decision.json")
    parser.add_argument("--out", type=Path, default=Path("data/predictions.csv"))
    parser.add_argument("--unreadable", type=Path, default=Path("data/unreadable.csv"))
    parser.add_argument("--model", type=Path, default=Path("models/model.pth"))
    parser.add_argument("--decision", type=Path, default=Path("models/decision.json"))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    return parser.parse_args()


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability from 0 to 1")
    return value


def one_image(predictor: Predictor, path: Path, frame: images.Frame) -> str:
    """A line per attribute, and the list of those present."""
    try:
        picture = images.open_square(path, frame).pixels
    except images.ImageFault as fault:
        raise UserError(f"{path}: {fault.reason}") from None
    probabilities = predictor.probabilities(picture[None])[0]
    lines, present = [], []
    for name, probability, threshold in zip(predictor.saved.attributes, probabilities, predictor.thresholds, strict=True):
        on = probability >= threshold
        present += [name] if on else []
        lines.append(f"{name:<20} {'present' if on else 'absent ':<8} {probability:.3f}  (threshold {threshold:.2f})")
    return "\n".join([*lines, f"present: {', '.join(present) or 'none'}"])


def whole_folder(
    predictor: Predictor, base: Path, names: list[str], frame: images.Frame, settings: params.Chosen
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probabilities and decisions of every readable file, and the unreadable ones; a batch in memory at a time."""
    opened = decoding.in_order(partial(pixels_or_reason, base, frame), names, settings.workers)
    tagged: list[str] = []
    found: list[np.ndarray] = []
    unreadable: list[tuple[str, str]] = []
    for batch in batched(zip(names, opened, strict=True), settings.batch_size):
        unreadable += [(shown(name, 200), result) for name, result in batch if isinstance(result, str)]
        pictures = [(shown(name, 4096), result) for name, result in batch if not isinstance(result, str)]
        if pictures:
            tagged += [name for name, _ in pictures]
            found.append(predictor.probabilities(np.stack([picture for _, picture in pictures])))
    attributes = predictor.saved.attributes
    probabilities = np.concatenate(found) if found else np.empty((0, len(attributes)))
    columns: dict[str, object] = {"image": tagged}
    for column, name in enumerate(attributes):
        columns[f"{name}_probability"] = probabilities[:, column].round(6)
        columns[name] = (probabilities[:, column] >= predictor.thresholds[column]).astype(int)
    return pd.DataFrame(columns), pd.DataFrame(unreadable, columns=["image", "reason"])


def pixels_or_reason(base: Path, frame: images.Frame, name: str) -> np.ndarray | str:
    try:
        return images.open_square(base / name, frame).pixels
    except images.ImageFault as fault:
        return fault.reason


def batched(items: Iterator[tuple[str, np.ndarray | str]], size: int) -> Iterator[list[tuple[str, np.ndarray | str]]]:
    while batch := list(islice(items, size)):
        yield batch


def counts(table: pd.DataFrame, attributes: list[str]) -> str:
    lines = [f"  {'attribute':<20} {'present':>7} {'absent':>7}"]
    lines += [f"  {name[:20]:<20} {int(table[name].sum()):>7} {int((table[name] == 0).sum()):>7}" for name in attributes[:20]]
    return "\n".join(lines)


if __name__ == "__main__":
    run_stage(main)
