"""BatchNorm folded into the convolution before it: one pass over the pixels less, the same numbers.

In eval mode BatchNorm is y = x * s + t per channel, with s = weight / sqrt(variance + eps) and t = bias - mean * s.
After a convolution that is a convolution with weights times s and bias t. Pairs are found by running the network once
and looking whose output is whose input, which works for any code of `forward`; whether nothing else read that
output is seen by comparing the logits before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import nn

CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # exactly these: others, such as StdConv2d, change their weights before they use them
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
# Of the logits on the probe, relative to the largest. Float32 rounding in 50 layers stays below 1e-5, a wrong fold far above.
TOLERANCE = 1e-4


def folded(network: nn.Module, resolution: int) -> nn.Module:
    """A copy of `network` without the BatchNorms that can be folded; the network itself where the copy answers otherwise."""
    probe = probe_of(resolution)
    copy = deepcopy(network).eval()
    with torch.inference_mode():
        expected = network.eval()(probe)
        found_pairs = pairs(copy, probe, lambda module: type(module) in NORMS and module.running_mean is not None)
    with torch.no_grad():
        for convolution, norm in found_pairs:
            _fold(copy, convolution, norm)
    with torch.inference_mode():
        found = copy(probe)
    return copy.to(memory_format=torch.channels_last) if agree(found, expected) else network


def probe_of(resolution: int) -> torch.Tensor:
    """Two pictures of noise to try a network on."""
    return torch.rand((2, 3, resolution, resolution), generator=torch.Generator().manual_seed(0)) * 2 - 1


def agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits are the same within TOLERANCE; those that are no numbers never are."""
    return bool((found - expected).abs().max() <= TOLERANCE * max(1.0, float(expected.abs().max())))


def pairs(network: nn.Module, probe: torch.Tensor, reads: Callable[[nn.Module], bool]) -> list[tuple[str, str]]:
    """Names of convolutions and of the modules that read their output and that `reads` asks for, of those that run once."""
    # By identity; kept, so that no identity is given twice, with the version, which changes where something is added in place.
    outputs: dict[int, tuple[str, torch.Tensor, int]] = {}
    runs: dict[str, int] = {}
    found: list[tuple[str, str]] = []
    hooks = []

    def after(name: str, output: torch.Tensor) -> None:
        runs[name] = runs.get(name, 0) + 1
        outputs[id(output)] = (name, output, output._version)

    def before(name: str, given: torch.Tensor) -> None:
        runs[name] = runs.get(name, 0) + 1
        if id(given) in outputs and outputs[id(given)][2] == given._version:
            found.append((outputs[id(given)][0], name))

    for name, module in network.named_modules():
        if type(module) in CONVOLUTIONS:
            hooks.append(module.register_forward_hook(lambda _, __, output, name=name: after(name, output)))
        elif reads(module):
            hooks.append(module.register_forward_pre_hook(lambda _, given, name=name: before(name, given[0])))
    with torch.inference_mode(False), torch.no_grad():  # tensors of inference mode have no versions
        network(probe)
    for hook in hooks:
        hook.remove()
    return [pair for pair in found if runs[pair[0]] == runs[pair[1]] == 1]


def _fold(network: nn.Module, convolution: str, norm: str) -> None:
    """Move the norm's numbers into the convolution, in float64, and put what follows them in its place."""
    conv, old = network.get_submodule(convolution), network.get_submodule(norm)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(old, nn.BatchNorm2d)
    assert old.running_mean is not None
    assert old.running_var is not None
    scale = (old.running_var.double() + old.eps).rsqrt()
    if old.affine:
        scale = scale * old.weight.double()
    bias = conv.bias.double() if conv.bias is not None else torch.zeros_like(scale)
    shift = (bias - old.running_mean.double()) * scale
    if old.affine:
        shift = shift + old.bias.double()
    conv.weight = nn.Parameter((conv.weight.double() * scale.view(-1, 1, 1, 1)).to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
    rest = nn.Sequential(old.drop, old.act) if isinstance(old, BatchNormAct2d) else nn.Identity()  # type: ignore[arg-type]
    parent, _, name = norm.rpartition(".")
    setattr(network.get_submodule(parent), name, rest.eval())
