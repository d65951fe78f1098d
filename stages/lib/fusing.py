"""On a CPU: a convolution and the activation after it in one pass over memory, the same numbers.

oneDNN, PyTorch's library for convolutions on CPUs, can apply an activation while a result is still in the processor's
cache, and read weights in the order that suits it; PyTorch asks it for neither outside torch.compile, whose own operator
(`torch.ops.mkldnn._convolution_pointwise`) does both here, without a compiler and without its start. Measured on 2 cores,
default backbone at 224 px, one thread per core, batches of 8: 81 -> 100 images/s.

Activations are found as norms are in `folding`: by looking whose output is whose input, and comparing the logits.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn

from stages.lib import folding, trunk

# Exactly these kinds -> what oneDNN calls them; a subclass may do something else.
ACTIVATIONS: dict[type, tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
}


class Fused(nn.Module):
    """A convolution, then an activation; weights are laid out for the first shape that comes, and again for another.

    Several threads may call it at once.
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module | None) -> None:
        super().__init__()
        self.convolution = convolution
        self.same = isinstance(convolution, Conv2dSame)
        self.padding = [0, 0] if self.same else list(convolution.padding)
        kind, numbers = ACTIVATIONS[type(activation)] if activation is not None else ("none", [])
        self.after = (kind, numbers, "")
        self._laid_out: dict[tuple[int, ...], torch.Tensor] = {}

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        conv = self.convolution
        if self.same:
            given = pad_same(given, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
        how: tuple[Any, ...] = (self.padding, conv.stride, conv.dilation, conv.groups)
        shape = tuple(given.shape[1:])  # the layout does not depend on the number of pictures
        weight = self._laid_out.get(shape)
        if weight is None:
            weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *how, list(given.shape))
            self._laid_out = {shape: weight}  # of another shape the last one alone, so that memory stays bounded
        return torch.ops.mkldnn._convolution_pointwise(given, weight, conv.bias, *how, *self.after)


def at_work(network: nn.Module, resolution: int, device: torch.device) -> nn.Module:
    """`network`, or a copy, on the device and as fast there as it can be: for one that only predicts from here on.

    Of `Blended` networks what all have in common runs once.
    """
    found = folding.folded(trunk.shared(network, resolution), resolution)
    return fused(found, resolution) if device.type == "cpu" else found.to(device)


def fused(network: nn.Module, resolution: int) -> nn.Module:
    """A copy of a network that only predicts, on a CPU, with all convolutions and the activations after them as `Fused`.

    The network itself where this PyTorch has no such operator, or the copy answers otherwise.
    """
    probe = folding.probe_of(resolution)
    copy = deepcopy(network).eval()
    with torch.inference_mode():
        expected = network.eval()(probe)
        pairs = dict(folding.pairs(copy, probe, lambda module: type(module) in ACTIVATIONS))
        for name, module in list(copy.named_modules()):
            if type(module) in folding.CONVOLUTIONS and module.padding_mode == "zeros" and not isinstance(module.padding, str):
                activation = copy.get_submodule(pairs[name]) if name in pairs else None
                _put(copy, name, Fused(module, activation))
                if name in pairs:
                    _put(copy, pairs[name], nn.Identity())
        try:
            found = copy(probe)
        except (AttributeError, RuntimeError):  # the operator is internal to PyTorch: another version may lack or change it
            return network
    return copy if folding.agree(found, expected) else network


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
