"""A few augmented views of each picture instead of a new one in every epoch: the frozen trunk sees each view once.

With K views epoch e shows what epoch 1 + (e - 1) mod K showed, in an order of its own. The first K epochs are those of a training
with fresh views, bit for bit; from then on nothing is augmented and the trunk does not run. Activations are always those of the
batches in which a view was first shown, also where an interrupted training makes them again: in other batches their
last digits could differ.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from stages.lib import mixing, trunk
from stages.lib.feeding import Feed

KEPT_BYTES = 2**31  # of activations; what needs more is augmented anew in every epoch


def count_of(choice: int, feed: Feed, frozen: nn.Module, device: torch.device) -> int:
    """The setting `train.views`; 0, with a message, where nothing is frozen and where the activations are too large."""
    if not choice:
        return 0
    if isinstance(frozen, nn.Identity):
        print(f"  train.views {choice}: no part of this network runs apart as frozen, so every epoch has fresh views", flush=True)
        return 0
    side = feed.pictures.resolution
    with torch.no_grad():
        size = frozen(torch.zeros(1, 3, side, side, device=device)).nbytes * len(feed.pictures) * choice
    if size > KEPT_BYTES:
        gigabytes = f"{size / 2**30:.1f} GiB, more than {KEPT_BYTES / 2**30:.1f}"
        print(f"  train.views {choice}: the activations would take {gigabytes}: every epoch has fresh views", flush=True)
        return 0
    print(f"  {choice} views of each picture, their frozen activations kept: {size / 2**20:.0f} MiB", flush=True)
    return choice


class Views:
    """Batches of (activations, targets, weights) of `count` views of each picture; pictures are not mixed with others."""

    def __init__(self, feed: Feed, frozen: nn.Module, count: int, device: torch.device, bf16: bool = False) -> None:
        self.feed, self.frozen, self.count, self.device, self.bf16 = feed, frozen, count, device, bf16
        self.kept: dict[int, torch.Tensor] = {}  # (n_images, ...) by the epoch that showed the view first

    def batches(self, epoch: int) -> Iterator[mixing.Weighted]:
        first = 1 + (epoch - 1) % self.count
        if first == epoch:
            return self._shown(epoch)
        return mixing.mixed(self._again(epoch, first), "none", 1.0, 0)

    def _shown(self, epoch: int) -> Iterator[mixing.Weighted]:
        """The batches of an epoch of fresh views, whose activations are kept."""
        kept = torch.empty(0)
        pictures = mixing.mixed(self.feed.batches(epoch), "none", 1.0, 0)
        plan = self._own_parts(epoch)
        for indices, batch in zip(plan, trunk.through(self.frozen, pictures, self.device, self.bf16), strict=True):
            if not len(kept):
                kept = batch[0].new_zeros((len(self.feed.pictures), *batch[0].shape[1:]))
            kept[indices] = batch[0]
            yield batch
        self.kept[epoch] = self.feed.members.summed(kept)  # each process of a team had its part
        if len(self.kept) == self.count:
            self.feed.close()

    def _again(self, epoch: int, first: int) -> Iterator[mixing.Batch]:
        if first not in self.kept:  # a training that carries on after an interruption
            for _ in self._shown(first):
                pass
        for indices in self._own_parts(epoch):
            activations = self.kept[first][indices]
            layout = torch.channels_last if activations.ndim == 4 else torch.contiguous_format
            yield activations.contiguous(memory_format=layout), self.feed.pictures.targets[indices]

    def _own_parts(self, epoch: int) -> Iterator[torch.Tensor]:
        """Of each batch of the epoch, the indices of the pictures that this process has."""
        for indices in self.feed.pictures.order(epoch, self.feed.size):
            yield torch.tensor(self.feed.members.part(indices), dtype=torch.long)
