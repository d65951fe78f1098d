"""Where the network looks: Grad-CAM heat maps.

R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
ICCV 2017: the last feature map's channels, each weighted by the mean gradient of one logit, and summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from stages.lib.blending import Blended
from stages.lib.model import Network, Tagger
from stages.lib.preprocessing import Preprocessing, to_input

BATCH = 32


def heatmap(
    network: Network, pictures: np.ndarray, columns: Sequence[int] | np.ndarray, how: Preprocessing, device: torch.device
) -> np.ndarray:
    """Where the network looks in picture i for attribute columns[i], float32 (n, resolution, resolution), 0 to 1.

    `pictures` is uint8 (n, side, side, 3); the maps lie over what `preprocessing.seen` returns of it. Each is divided by its
    own maximum, so that maps tell places and not strengths. Of `Blended` networks the last feature maps of the tuned ones
    count as one layer, which the mean of their logits is made of; what the untouched one adds has no map. A map is zero where
    no place speaks for the attribute, and for backbones whose features are neither a map, channels first or last, nor a square of
    tokens. The network is put into eval mode and otherwise left alone, frozen or not.
    """
    network.eval()
    tuned = [*network.tuned] if isinstance(network, Blended) else [network]
    found = [np.zeros((0, how.resolution, how.resolution), dtype=np.float32)]
    for start in range(0, len(pictures), BATCH):
        batch = to_input(pictures[start : start + BATCH], how, device)
        chosen = torch.as_tensor(np.asarray(columns[start : start + BATCH]), dtype=torch.long, device=device)
        maps = functional.relu(torch.stack([_weighted_sums(one, batch, chosen) for one in tuned]).sum(0))
        found.append(_stretched(maps, how.resolution).cpu().numpy())
    return np.concatenate(found)


def _weighted_sums(network: Tagger, batch: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Sums of the channels, each weighted by its mean gradient, (n, height, width) of the feature map."""
    layer, features = _explained(network.backbone, batch)
    nothing = torch.zeros(len(batch), 1, 1, device=batch.device)
    if layer is None:
        return nothing
    with torch.enable_grad():
        logits = network.head(network.backbone.forward_head(features))  # type: ignore[operator]
        # Rows do not depend on each other in eval mode, so that one sum gives the gradient of every picture.
        total = logits.gather(1, columns[:, None]).sum()
        # Unlike backward(), this leaves no .grad on the parameters.
        (gradient,) = torch.autograd.grad(total, layer, allow_unused=True, materialize_grads=True)
    maps, slopes = (_channels_first(tensor.detach().float(), network.backbone) for tensor in (layer, gradient))
    if maps is None or slopes is None:
        return nothing
    return (slopes.mean((2, 3), keepdim=True) * maps).sum(1)


def _explained(backbone: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The layer whose places are weighed, and the features that the head sees, differentiable by that layer.

    The layer is the features themselves, but for transformers that read a class token: there the other tokens
    of the features go nowhere, and the input of the last block is the last layer in which they count. No
    gradient is recorded below the layer. None for a backbone without such a layer.
    """
    by_token = getattr(backbone, "global_pool", None) == "token"
    blocks = getattr(backbone, "blocks", None)
    stacked = isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) > 0
    if not hasattr(backbone, "forward_features") or not hasattr(backbone, "forward_head") or (by_token and not stacked):
        return None, batch
    layers: list[torch.Tensor] = []

    def start_here(block: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        layers.append(inputs[0].detach().requires_grad_())
        torch.set_grad_enabled(True)  # until the end of no_grad below
        return (layers[0], *inputs[1:])

    hook = blocks[-1].register_forward_pre_hook(start_here) if by_token else None  # type: ignore[index, operator, union-attr]
    try:
        with torch.no_grad():
            features = backbone.forward_features(batch)  # type: ignore[operator]
    finally:
        if hook is not None:
            hook.remove()
    if not isinstance(features, torch.Tensor):  # CoaT, CrossViT: one feature map per branch
        return None, batch
    if not layers:
        features = features.detach().requires_grad_()
        layers.append(features)
    return layers[0], features


def _channels_first(layer: torch.Tensor, backbone: nn.Module) -> torch.Tensor | None:
    """A layer as (n, channels, height, width), or None where its places can't be told."""
    channels = backbone.num_features
    if layer.ndim == 4 and layer.shape[1] == channels:
        return layer
    if layer.ndim == 4 and layer.shape[3] == channels:
        return layer.permute(0, 3, 1, 2)
    if layer.ndim != 3 or layer.shape[2] != channels:
        return None
    prefix = int(getattr(backbone, "num_prefix_tokens", 0))  # type: ignore[arg-type]
    for skipped in (prefix, 0):  # some add the class token late (CaiT, XCiT): their blocks see places only
        side = isqrt(max(0, layer.shape[1] - skipped))
        if side and side * side == layer.shape[1] - skipped:
            return layer[:, skipped:].transpose(1, 2).unflatten(2, (side, side))
    return None


def _stretched(maps: torch.Tensor, resolution: int) -> torch.Tensor:
    """Maps (n, height, width) enlarged to (n, resolution, resolution), each divided by its maximum where it has one."""
    size = (resolution, resolution)
    large = functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    peaks = large.amax((1, 2), keepdim=True)
    usable = (peaks > 0) & peaks.isfinite()
    return torch.where(usable, large / torch.where(usable, peaks, 1), 0)
