"""A network cut in two: the frozen trunk, which only ever runs forward, and the rest, which trains.

The trunk needs no gradients and can be made fast as prediction is (fusing), and what it says of a picture that is not
augmented never changes: such work is done once. Both halves are the network's own code with the units of the other half
replaced by the identity, so that no family of networks needs code of its own. Where that does not add up to the
whole, as in transformers that add position embeddings between their units, the network stays in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import numpy as np
import torch
from torch import nn

from stages.lib import backbones, folding, inference
from stages.lib.blending import Blended
from stages.lib.mixing import Weighted
from stages.lib.model import Tagger
from stages.lib.pixels import Pictures
from stages.lib.preprocessing import Preprocessing

KEPT_BYTES = 2**29  # of what is kept for all epochs; above it the pictures go through the trunk in every epoch


def split(network: Tagger, resolution: int) -> tuple[nn.Module, Tagger]:
    """A frozen trunk (pictures -> activations) and a `Tagger` that takes activations and holds what trains.

    Both are copies; names of the trained parameters are those in `network`. Where nothing is frozen, or the network
    can't be cut, the trunk is the identity and the other half the network itself.
    """
    if not network.first_trained:
        return nn.Identity(), network
    trunk, rest = _trunk_of(deepcopy(network)), _rest_of(deepcopy(network))
    probe, was_training = folding.probe_of(resolution), network.training
    with torch.no_grad():
        expected = network.eval()(probe)
        network.train(was_training)
        try:
            found = rest.eval()(trunk(probe))
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # a half that is no network any more
            return nn.Identity(), network
    if found.shape != expected.shape or not folding.agree(found, expected):
        return nn.Identity(), network
    return trunk, rest.train()


def shared(network: nn.Module, resolution: int) -> nn.Module:
    """`Blended` networks whose common trunk runs once; where it can't be cut, and for any other network, the network itself."""
    if not isinstance(network, Blended):
        return network
    cut = []
    for part in network.parts():
        assert isinstance(part, Tagger)
        cut.append(split(part, resolution))
    trunks, rests = zip(*cut, strict=True)
    if any(isinstance(trunk, nn.Identity) for trunk in trunks):
        return network
    count = len(network.tuned)
    return Blended(rests[:count], rests[count] if rests[count:] else None, network.share, trunks[0]).eval()


def through(trunk: nn.Module, batches: Iterable[Weighted], device: torch.device, bf16: bool = False) -> Iterator[Weighted]:
    """Batches of (pictures, targets, weights) -> batches of (activations, targets, weights), activations on the device."""
    for pictures, targets, weights in batches:
        # Not inference mode, whose tensors no gradient could be taken of.
        with torch.no_grad(), inference.precision(device, bf16):
            activations = trunk(pictures.to(device, memory_format=torch.channels_last))
        yield activations, targets, weights


def joined(network: Tagger, trained: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of `network` with the tensors of its trained half in their places; the frozen ones as they were."""
    return {name: trained.get(name, tensor.detach().cpu().clone()) for name, tensor in network.state_dict().items()}


def _trunk_of(network: Tagger) -> nn.Module:
    backbone = network.backbone
    for unit, level in (network.unit_levels or {}).items():
        if level >= network.first_trained:
            _to_identity(backbone, unit)
    return backbone.eval().requires_grad_(False)


def _rest_of(network: Tagger) -> Tagger:
    if network.first_trained == len(backbones.LEVELS) - 1:
        network.backbone = nn.Identity()
        return network
    for unit, level in (network.unit_levels or {}).items():
        if level < network.first_trained:
            _to_identity(network.backbone, unit)
    return network


def _to_identity(backbone: nn.Module, unit: str) -> None:
    parent, _, name = unit.rpartition(".")
    setattr(backbone.get_submodule(parent), name, nn.Identity())


class Prepared:
    """What the trunk makes of pictures that are not augmented: once for all epochs, where it fits in memory."""

    def __init__(self, trunk: nn.Module, store: Pictures, rows: np.ndarray, how: Preprocessing, device: torch.device) -> None:
        self.trunk, self.store, self.rows, self.how, self.device = trunk, store, rows, how, device
        self.kept: list[torch.Tensor] = []

    def logits(self, rest: nn.Module) -> np.ndarray:
        """Logits of the rows by the trained half, shape (n_rows, n_attributes), float64."""
        rest.eval()
        with torch.inference_mode():
            found = [rest(batch).float().cpu().numpy() for batch in self._batches()]
        return np.concatenate(found).astype(np.float64) if found else np.empty((0, 0))

    def _batches(self) -> Iterator[torch.Tensor]:
        if self.kept:
            yield from self.kept
            return
        fresh: list[torch.Tensor] = []
        for pictures in inference.batches(self.store, self.rows, self.how, self.device):
            activations = self.trunk(pictures)
            if activations[0].nbytes * len(self.rows) <= KEPT_BYTES:
                fresh.append(activations)
            yield activations
        self.kept = fresh
