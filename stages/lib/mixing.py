"""Mixup and cutmix of a batch that carry the mask of unknown labels with them.

Each picture is blended with a partner of the same batch: mixup (Zhang et al. 2018) adds lambda of the one to 1 - lambda of the
other, cutmix (Yun et al. 2019) puts a rectangle of 1 - lambda of the other's area into the one; lambda is drawn per batch from
Beta(alpha, alpha). The loss of the blend is lambda * loss(own label) + (1 - lambda) * loss(partner's label), in which an
unknown label has no part: where only one of the two is known, its share of the weight is all there is. The loss is linear in
the target, so that two labels with weights are one soft target with the sum of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from stages.lib.chance import seed_for

Batch = tuple[torch.Tensor, torch.Tensor]
Weighted = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Rectangle = tuple[slice, slice]  # of rows and columns


def mixed(batches: Iterable[Batch], how: str, alpha: float, seed: int) -> Iterator[Weighted]:
    """(images, targets) -> (images, soft targets, weights of the cells); `how` is "none", "mixup" or "cutmix".

    Targets (n, n_attributes) come with NaN for unknown; they leave as numbers from 0 to 1, NaN where neither label was
    known. Weights are 1 where both are known (and without mixing where the own is), 0 where neither is.
    """
    for number, (images, targets) in enumerate(batches):
        if how == "none":
            yield images, targets, (~torch.isnan(targets)).float()
            continue
        chance = np.random.default_rng(seed_for(seed, "mix", number))
        kept = float(chance.beta(alpha, alpha))
        height, width = images.shape[-2:]
        rectangle = rectangle_of(1 - kept, height, width, chance)
        # Drawn last: in a team the parts of a batch may differ in size, and share and rectangle must not.
        partner = torch.from_numpy(chance.permutation(len(images)))
        if how == "mixup":
            images = kept * images + (1 - kept) * images[partner]
        else:
            images, kept = pasted(images, images[partner], rectangle)
        yield images, *blended(targets, targets[partner], kept)


def rectangle_of(share: float, height: int, width: int, chance: np.random.Generator) -> Rectangle:
    """Rows and columns of a rectangle with this share of the area, to the nearest pixel, anywhere within the picture."""
    sides = [round(side * math.sqrt(share)) for side in (height, width)]
    top, left = (int(chance.integers(0, whole - side + 1)) for whole, side in zip((height, width), sides, strict=True))
    return slice(top, top + sides[0]), slice(left, left + sides[1])


def pasted(images: torch.Tensor, others: torch.Tensor, rectangle: Rectangle) -> tuple[torch.Tensor, float]:
    """Images (n, 3, height, width) with the rectangle of `others`, and the share of their own area that is left."""
    images = images.clone()
    images[..., *rectangle] = others[..., *rectangle]
    rows, columns = (side.stop - side.start for side in rectangle)
    return images, 1 - rows * columns / (images.shape[-2] * images.shape[-1])


def blended(own: torch.Tensor, other: torch.Tensor, kept: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft targets and weights of labels `own` with weight `kept` and `other` with 1 - kept; NaN and 0 where both are NaN."""
    weights = kept * ~torch.isnan(own) + (1 - kept) * ~torch.isnan(other)
    present = kept * torch.nan_to_num(own) + (1 - kept) * torch.nan_to_num(other)
    return present / weights, weights  # 0 / 0 is NaN
