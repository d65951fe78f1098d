"""Backbone and head as one network, and freezing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from stages.lib import backbones
from stages.lib.blending import Blended
from stages.lib.errors import UserError
from stages.lib.params import FREEZE_LEVELS


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
