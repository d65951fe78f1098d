"""Processes that train one network together, one per GPU (NCCL) or several on CPUs (gloo): the result is that of one process.

Every process takes its part of each batch. The loss is divided by the known labels of the whole batch, BatchNorm uses the
whole batch's statistics, and gradients are summed, so that only the order of additions differs; dropout draws other
masks of the same kind, and mixup and cutmix find partners within a process's part of the batch. The first process alone
prints and writes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from stages.lib import decoding
from stages.lib.errors import UserError, first_line

PATIENCE = timedelta(hours=1)  # the others wait while the first does what is not shared


@dataclass(frozen=True)
class Team:
    """Process number `rank`, counted from 0, of `size`."""

    rank: int = 0
    size: int = 1

    def part(self, items: Sequence[Any] | np.ndarray) -> Any:
        """This process's share of `items`."""
        return items[self.rank :: self.size]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def put_together(self, own: np.ndarray) -> np.ndarray:
        """From each process's rows for its `part`, the rows for all items, in their order."""
        if self.size == 1:
            return own
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, own)
        found = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), own.dtype)
        for rank, rows in enumerate(parts):
            found[rank :: self.size] = rows.reshape(len(rows), *found.shape[1:])
        return found

    def total(self, *numbers: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Sums of single numbers over all processes; no gradient goes through them."""
        if self.size == 1:
            return tuple(number.detach() for number in numbers)
        sums = torch.stack([number.detach().double() for number in numbers])
        distributed.all_reduce(sums)
        return tuple(sums)

    def summed(self, given: torch.Tensor) -> torch.Tensor:
        """Sum over all processes, in place; no gradient goes through it."""
        if self.size > 1:
            distributed.all_reduce(given)
        return given

    def joined(self, network: nn.Module) -> nn.Module:
        """The network as this process trains it: it starts as the first one's, and its gradients are everybody's mean."""
        if self.size == 1:
            return network
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = SharedBatchNorm  # the same tensors under the same names, in copies too
        return nn.parallel.DistributedDataParallel(network)


ALONE = Team()


class _Sum(torch.autograd.Function):
    """Sum over all processes; its gradient is the sum of everybody's."""

    @staticmethod
    def forward(_: Any, given: torch.Tensor) -> torch.Tensor:
        given = given.clone()
        distributed.all_reduce(given)
        return given

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the parts of all processes, on any device, with timm's activation where there is one.

    PyTorch's SyncBatchNorm runs on GPUs alone. The variance is summed after the mean is known: E[x^2] - E[x]^2 loses digits.
    """

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found = self._normalised(given) if self.training else super().forward(given)
        return self.act(self.drop(found)) if hasattr(self, "act") else found  # type: ignore[operator]

    def _normalised(self, given: torch.Tensor) -> torch.Tensor:
        values = given.float()
        own = torch.tensor([values.numel() / values.shape[1]], device=given.device)
        sums = _Sum.apply(torch.cat([values.sum((0, 2, 3)), own]))
        count = sums[-1].detach()
        centred = values - (sums[:-1] / count).view(1, -1, 1, 1)
        variance = _Sum.apply((centred * centred).sum((0, 2, 3))) / count
        found = centred * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
        if self.affine:
            found = found * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        self._keep(sums[:-1].detach() / count, variance.detach() * count / (count - 1).clamp(min=1))
        return found.to(given.dtype)

    @torch.no_grad()
    def _keep(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Running statistics, as nn.BatchNorm2d keeps them."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


@contextmanager
def opened(device: torch.device) -> Iterator[tuple[Team, torch.device]]:
    """The team that torchrun, or launching.launch, has started this process in, and the device that is this process's own."""
    if "WORLD_SIZE" not in os.environ:
        yield ALONE, device
        return
    try:
        local = int(os.environ["LOCAL_RANK"])
        if device.type == "cuda":
            if local >= torch.cuda.device_count():
                raise UserError(f"{local + 1} processes, but {torch.cuda.device_count()} GPUs: lower train.processes")
            device = torch.device("cuda", local)
            torch.cuda.set_device(device)
        else:
            torch.set_num_threads(max(1, decoding.cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"WORLD_SIZE is set, but the processes can't find each other: {first_line(error)}") from None
    team = Team(distributed.get_rank(), distributed.get_world_size())
    with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if team.rank == 0 else nowhere):
        yield team, device
    distributed.destroy_process_group()
