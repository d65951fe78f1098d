"""Backbone and head as one network; freezing; model.pth, which holds all that prediction needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from stages.lib import backbones, tensors
from stages.lib.blending import Blended
from stages.lib.errors import UserError, first_line
from stages.lib.faults import attribute_names, shown
from stages.lib.params import FREEZE_LEVELS
from stages.lib.preprocessing import Preprocessing, parsed

FORMAT = "image-attribute-tagger 1"
MOST_MEMBERS = 100  # as many as `folds` may be


class Tagger(nn.Module):
    """Images (n, 3, height, width) -> logits (n, n_attributes).

    Head: Dropout - Linear(hidden) - ReLU - Dropout - Linear(n_attributes); without hidden layer (0) one
    Dropout and one Linear.
    """

    def __init__(self, backbone: nn.Module, n_attributes: int, hidden: int, dropout: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        features = int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]
        layers: list[nn.Module] = [nn.Dropout(dropout[0])]
        if hidden:
            layers += [nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout[1])]
        self.head = nn.Sequential(*layers, nn.Linear(hidden or features, n_attributes))
        self.unit_levels = backbones.levels(backbone)
        self.first_trained = 0  # level (backbones.LEVELS) from which on parameters train

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images))

    def start_head(self, weights: np.ndarray, bias: np.ndarray) -> None:
        """Let a head without hidden layer begin as a regression: (n_attributes, n_features) and (n_attributes,)."""
        linear = self.head[-1]
        assert isinstance(linear, nn.Linear)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weights))
            linear.bias.copy_(torch.from_numpy(bias))

    def level(self, parameter: str) -> int:
        """Level of a parameter of this network, by its dotted name."""
        if not parameter.startswith("backbone."):
            return len(backbones.LEVELS) - 1
        if self.unit_levels is None:  # one piece, which trains whole or not at all: next to the head
            return len(backbones.LEVELS) - 2
        return backbones.level_of(parameter.removeprefix("backbone."), self.unit_levels)

    def freeze(self, first: str) -> None:
        """Freeze what lies before stage `first` ("none", "layer1".."layer4", or "all" for the whole backbone).

        Frozen means: no gradients, and modules in eval mode whatever `train` says, so that BatchNorm
        statistics stay as they are.
        """
        if first not in FREEZE_LEVELS:
            raise ValueError(f"freeze must be one of {FREEZE_LEVELS}, not {first!r}")
        if first.startswith("layer") and self.unit_levels is None:
            name = type(self.backbone).__name__
            raise UserError(f"freeze: {name} has no four stages that {first} could name; valid for it: none, all")
        self.first_trained = FREEZE_LEVELS.index(first)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.level(name) >= self.first_trained)
        self.train(self.training)

    def train(self, mode: bool = True) -> Tagger:
        super().train(mode)
        if mode and self.first_trained:
            # Setting the flag of each module by itself leaves trained modules inside a frozen container alone.
            for name, module in self.backbone.named_modules():
                if self.level(f"backbone.{name}") < self.first_trained:
                    module.training = False
        return self


Network = Tagger | Blended


def parameter_table(model: Tagger) -> list[tuple[str, int, bool]]:
    """Per level: name, number of parameters, whether it trains."""
    counts = [0] * len(backbones.LEVELS)
    for name, parameter in model.named_parameters():
        counts[model.level(name)] += parameter.numel()
    if model.unit_levels is None:  # the backbone is one piece
        body = sum(counts[:-1])
        return [("backbone", body, model.first_trained == 0), ("head", counts[-1], True)]
    rows = zip(backbones.LEVELS, counts, strict=True)
    return [(name, count, index >= model.first_trained) for index, (name, count) in enumerate(rows)]


def opening(network: Tagger, title: str) -> str:
    """What trains and what is frozen, as a table."""
    rows = parameter_table(network)
    lines = [title, *(f"  {name:<9} {count:>11,} parameters  {'trains' if on else 'frozen'}" for name, count, on in rows)]
    trained = sum(count for _, count, on in rows if on)
    lines.append(f"  {trained:,} of {sum(count for _, count, _ in rows):,} parameters train")
    return "\n".join(lines)


def untrained(name: str, resolution: int, n_attributes: int, hidden: int, *dropout: float) -> Tagger:
    return Tagger(backbones.bare(name, resolution), n_attributes, hidden, dropout)


class _Undrawn(TorchFunctionMode):
    """Leaves out the drawing of random weights: without memory there is nothing to draw into, and PyTorch would import its
    compiler to find that out, which takes two seconds."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (torch.Tensor.normal_, torch.Tensor.uniform_) or getattr(function, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@lru_cache(maxsize=4)
def shapes(*kind: Any) -> dict[str, torch.Size]:
    """Of the tensors of `untrained(*kind)`, by name; without memory for them, since a file may name a network of any size."""
    try:
        with torch.device("meta"), _Undrawn():
            network = untrained(*kind)
    except (NotImplementedError, RuntimeError):  # a family that computes with its weights while it is built
        network = untrained(*kind)
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@dataclass
class Member:
    """One trained network: its weights, and what its training knew. `pos_weight` has one entry per attribute.

    With a `share` above 0 a regression has that share of the logits (blending). `untouched` holds its weights as those of a
    linear head, and what its backbone has otherwise than the network's: the trained stages before training.
    """

    state: dict[str, torch.Tensor]
    pos_weight: list[float]
    epoch: int  # the kept epoch, counted from 1
    val_loss: float
    share: float = 0.0
    untouched: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass
class Saved:
    """The content of model.pth: one member, or one per fold."""

    backbone: str
    attributes: list[str]
    hidden: int
    dropout: list[float]
    preprocessing: Preprocessing
    settings: dict[str, Any]  # what train was run with, for people
    members: list[Member]

    def networks(self) -> list[Network]:
        """The members as networks in eval mode: a `Tagger` each, or two of them `Blended`. UserError where weights do not fit."""
        built: list[Network] = []
        for member in self.members:
            network = self._tagger(member.state, self.hidden)
            if not member.share:
                built.append(network)
            else:
                kept = {name: tensor for name, tensor in member.state.items() if name.startswith("backbone.")}
                other = self._tagger(kept | member.untouched, 0)
                # From here on they differ; below it one can do the work of both (trunk.shared).
                other.first_trained = min(other.level(name) for name in member.untouched)
                network.first_trained = other.first_trained
                built.append(Blended(network, other, member.share).eval())
        return built

    def _tagger(self, state: dict[str, torch.Tensor], hidden: int) -> Tagger:
        kind: tuple[Any, ...] = (self.backbone, self.preprocessing.resolution, len(self.attributes), hidden, *self.dropout)
        expected, found = shapes(*kind), {name: tensor.shape for name, tensor in state.items()}
        if differs := [name for name in {**expected, **found} if expected.get(name) != found.get(name)]:
            some = f"{shown(differs[0])}{f' and {len(differs) - 1} more' * (len(differs) > 1)}"
            raise UserError(f"the model's weights do not fit {self.backbone}: {some}; run 'dvc repro --force train'")
        network = untrained(*kind)
        network.load_state_dict(state)
        return network.eval().to(memory_format=torch.channels_last)

    def log_pos_weight(self, index: int) -> np.ndarray:
        """log(pos_weight) of a member, shape (n_attributes,): what its logits are shifted by."""
        return np.log(np.asarray(self.members[index].pos_weight))


def save(path: Path, saved: Saved) -> None:
    """Write model.pth: plain values and tensors only, so that it loads with `weights_only=True`."""
    for member in saved.members:
        # pickle writes a text once for every object that holds it: with one object per text, equal models are equal bytes.
        member.state = {sys.intern(name): tensor for name, tensor in member.state.items()}
        member.untouched = {sys.intern(name): tensor for name, tensor in member.untouched.items()}
    for part in ("state", "untouched"):  # what several members have alike, as the frozen parts, is stored once
        known: dict[str, torch.Tensor] = {}
        for state in (getattr(member, part) for member in saved.members):
            for name, tensor in state.items():
                if torch.equal(tensor, known.setdefault(name, tensor)):
                    state[name] = known[name]
    content = {item.name: getattr(saved, item.name) for item in fields(saved)}
    content |= {"format": FORMAT, "preprocessing": asdict(saved.preprocessing)}
    content["members"] = [{item.name: getattr(m, item.name) for item in fields(m)} for m in saved.members]
    tensors.write(path, content)


def load(path: Path) -> Saved:
    """Read model.pth without executing anything in it. Raises UserError for anything that is not one."""
    if not path.is_file():
        raise UserError(f"model {path} is missing; the train stage writes it: run 'dvc repro train'")
    try:
        content = tensors.read(path)
    except Exception as error:  # damaged bytes lead the unpickler to errors of every type
        raise UserError(
            f"model {path} is damaged or no model file ({first_line(error)}); run 'dvc repro --force train'"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"model {path} is not of this project's format ('{FORMAT}')")
    try:
        content = {item.name: content[item.name] for item in fields(Saved)}
        content["preprocessing"] = parsed(content["preprocessing"])
        content["members"] = [Member(**member) for member in content["members"]]
        return _checked(Saved(**content))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"model {path} lacks a part: {error}; run 'dvc repro --force train'") from None
    except (ValueError, OverflowError, RuntimeError) as error:  # the last of tensors where numbers belong
        raise UserError(f"model {path} can't be used: {first_line(error)}; run 'dvc repro --force train'") from None


def _checked(saved: Saved) -> Saved:
    """ValueError for contents of the right names that are of the wrong kind; whether weights fit is seen in `networks`."""
    attribute_names(saved.attributes)
    if not isinstance(saved.backbone, str) or not isinstance(saved.hidden, int):
        raise ValueError("backbone is no name, or hidden no whole number")
    if (
        not isinstance(saved.dropout, list)
        or len(saved.dropout) != 2
        or not all(0 <= float(share) < 1 for share in saved.dropout)
    ):
        raise ValueError("dropout is no pair of shares")
    if not 1 <= len(saved.members) <= MOST_MEMBERS:
        raise ValueError(f"it has {len(saved.members)} members, not 1 to {MOST_MEMBERS}")
    for member in saved.members:
        for state in (member.state, member.untouched):
            if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
                raise ValueError("a member's state is no mapping of tensors")
            for name, tensor in state.items():
                if why := tensors.flaw(tensor):
                    raise ValueError(f"its tensor '{shown(name)}' {why}")
        # Before a network of this size is made.
        last = [tensor for name, tensor in member.state.items() if name.startswith("head.") and name.endswith(".weight")][-1:]
        if not last or last[0].shape != (len(saved.attributes), saved.hidden or last[0].shape[-1]):
            raise ValueError("the head's weights do not fit the attributes and the hidden layer")
        if isinstance(member.share, bool) or not 0 <= float(member.share) < 1:
            raise ValueError("a member's share of the regression is not from 0 to 1")
        regression = member.untouched.get("head.1.weight")
        if member.share and (regression is None or regression.ndim != 2 or len(regression) != len(saved.attributes)):
            raise ValueError("the regression's weights do not fit the attributes")
        weights = np.asarray(member.pos_weight, dtype=float)
        if weights.shape != (len(saved.attributes),) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ValueError("pos_weight is no list of numbers above 0, one per attribute")
        if not all(torch.isfinite(tensor).all() for tensor in (*member.state.values(), *member.untouched.values())):
            raise ValueError("it has weights that are no numbers")
    return saved
