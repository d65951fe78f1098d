"""Export a trained model to ONNX, checked on real images, so that predict and other programs run it without PyTorch.

    python -m stages.export --out models/model.onnx
    python -m stages.predict --model models/model.onnx --image photo.jpg

Reads   models/model.pth, models/decision.json, images to check with, params.yaml (predict.images, validate.max_*)
Writes  models/model.onnx  the members as one graph with a dynamic batch; preprocessing, attributes, thresholds and
                           calibration in its metadata (stages/lib/portable.py says how to read them)

Needs the packages onnx, onnxscript and onnxruntime. The file is kept only if its probabilities differ by at most 1e-4 from
PyTorch's on every checked image.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stages.lib import decisions, decoding, files, folder, folding, images, inference, model_file, params, portable, trunk
from stages.lib.errors import UserError, first_line, run_stage
from stages.lib.preprocessing import to_input

READS = ("predict.images", "validate.max_megapixels", "validate.max_aspect")
TOLERANCE = 1e-4  # of probabilities: float32 sums in another order stay far below it, a wrong operator far above
LARGEST = 2**31 - 2**20  # bytes; a protobuf message ends at 2 GiB


class Members(nn.Module):
    """All members as one network: inputs (n, 3, side, side) -> mean of the log-odds (n, n_attributes)."""

    def __init__(self, networks: list[nn.Module], log_pos_weight: np.ndarray) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.register_buffer("shift", torch.from_numpy(log_pos_weight.mean(axis=0)).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = self.networks[0](images)
        for network in self.networks[1:]:
            total = total + network(images)
        return total / len(self.networks) - self.shift


def main() -> None:
    args = arguments()
    if args.out.suffix.lower() != ".onnx":
        raise UserError(f"--out {args.out}: its ending must be .onnx")
    files.check_writable(args.out)
    check_packages()
    settings = params.load(args.params, READS)
    saved = model_file.load(args.model)
    fingerprint = files.fingerprint(args.model)
    decision, log_pos_weight = decisions.read(args.decision, fingerprint, saved.attributes, len(saved.members))
    how = saved.preprocessing
    frame = images.Frame(how.side, how.fit, settings.validate.max_megapixels, settings.validate.max_aspect)
    pictures = real_pictures(args.images or Path(settings.predict.images), frame, args.count)
    networks = [folding.folded(trunk.shared(network, how.resolution), how.resolution) for network in saved.networks()]
    members = Members(networks, log_pos_weight).eval()
    with files.replacing(args.out) as temporary:
        write_graph(members, how.resolution, temporary)
        describe(temporary, saved, decision, fingerprint)
        difference = largest_difference(temporary, saved, decision, log_pos_weight, pictures)
        # The negation also refuses NaN.
        if not difference <= TOLERANCE:
            raise UserError(
                f"ONNX Runtime and PyTorch differ by {difference:.1e} in a probability, above {TOLERANCE:.0e}; {args.out} is not "
                f"written: {saved.backbone} can't be exported with these versions of PyTorch, onnxscript and onnxruntime"
            )
    size = args.out.stat().st_size / 2**20
    print(f"{args.out}: {size:.1f} MiB, networks: {saved.n_networks()}, attributes: {len(saved.attributes)}")
    print(f"largest difference of a probability from PyTorch on {len(pictures)} images: {difference:.1e} (limit {TOLERANCE:.0e})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("models/model.onnx"))
    parser.add_argument("--images", type=Path, help="folder of images to check with; predict.images of params.yaml if not given")
    parser.add_argument("--count", type=int, default=64, help="how many of them, at most")
    parser.add_argument("--model", type=Path, default=Path("models/model.pth"))
    parser.add_argument("--decision", type=Path, default=Path("models/decision.json"))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    return parser.parse_args()


def check_packages() -> None:
    missing = []
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise UserError(f"export needs the packages {', '.join(missing)}: pip install {' '.join(missing)}")


def real_pictures(base: Path, frame: images.Frame, count: int) -> np.ndarray:
    """The first readable images of a folder, (n, side, side, 3) uint8; a check without any would prove nothing."""

    def opened(name: str) -> np.ndarray | None:
        try:
            return images.open_square(base / name, frame).pixels
        except images.ImageFault:
            return None

    pictures = (picture for picture in decoding.in_order(opened, folder.image_files(base)) if picture is not None)
    found = list(islice(pictures, count))
    if not found:
        raise UserError(f"{base} has no readable image to check the export with; name a folder with --images")
    return np.stack(found)


def write_graph(members: Members, resolution: int, path: Path) -> None:
    """Write the network, with a batch of any size."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = torch.zeros(2, 3, resolution, resolution)
    shapes = {portable.INPUT: {0: torch.export.Dim("batch")}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about its own parts
            program = torch.onnx.export(
                members,
                (example,),
                input_names=[portable.INPUT],
                output_names=[portable.OUTPUT],
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
            program.save(str(path), external_data=False)  # type: ignore[union-attr]
    except OSError:
        raise
    except Exception as error:  # the exporter raises whatever a network leads it to
        raise UserError(f"PyTorch can't export this network to ONNX: {first_line(error)}") from None


def describe(path: Path, saved: model_file.Saved, decision: decisions.Decision, fingerprint: str) -> None:
    """Add to the file what prediction needs besides the graph, and the fingerprint of the model.pth it comes from."""
    import onnx

    numbers = zip(saved.attributes, decision.temperature, decision.threshold, decision.reached, strict=True)
    each = {
        # The graph has subtracted log(pos_weight), which is why the shift that is left is 0.
        name: {"log_pos_weight": [0.0], "temperature": float(t), "threshold": float(p), "goal_reached": bool(reached)}
        for name, t, p, reached in numbers
    }
    content = onnx.load(str(path))
    described = {
        "format": portable.FORMAT,
        "source": fingerprint,
        "backbone": saved.backbone,
        "attributes": json.dumps(saved.attributes),
        "preprocessing": json.dumps(asdict(saved.preprocessing)),
        "decision": json.dumps({"attributes": each}),
    }
    onnx.helper.set_model_props(content, described)
    if content.ByteSize() > LARGEST:
        raise UserError(
            "the model is larger than 2 GiB, the limit of one ONNX file; lower folds or train.networks, or the backbone's size"
        )
    onnx.checker.check_model(content)
    path.write_bytes(content.SerializeToString(deterministic=True))


def largest_difference(
    path: Path, saved: model_file.Saved, decision: decisions.Decision, log_pos_weight: np.ndarray, pictures: np.ndarray
) -> float:
    """Between the probabilities of the file, as predict runs it, and of the networks as they are saved."""
    exported = portable.Portable(path, "cpu", mirrored=False)
    own, _ = exported.decision()
    networks = saved.networks()
    largest, size = 0.0, inference.BATCH["cpu"]
    for start in range(0, len(pictures), size):
        batch = pictures[start : start + size]
        given = to_input(batch, saved.preprocessing)
        with torch.inference_mode():
            logits = np.stack([network(given).double().numpy() for network in networks])
        log_odds = decisions.corrected(logits, log_pos_weight[:, None]).mean(axis=0)
        expected = decisions.probabilities(decision.calibrated(log_odds))
        found = decisions.probabilities(own.calibrated(exported.logits(batch)[0]))
        largest = max(largest, float(np.abs(found - expected).max())) if np.isfinite(found).all() else np.inf
    return largest


if __name__ == "__main__":
    run_stage(main)
