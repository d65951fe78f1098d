"""Training batches that are ready when the network asks for them, and the seconds that it waited all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from stages.lib import decoding
from stages.lib.augment import TrainingPictures
from stages.lib.team import ALONE, Team

# Of a CPU that trains on all of its cores: one process augments more pictures than eight cores can train with.
CORES_PER_WORKER = 8


def workers_of(choice: int | str, device: torch.device) -> int:
    """Number of processes that prepare batches for the setting `train.workers`, which may be "auto".

    A single core gains nothing from a second process. Where a GPU computes, all cores but one prepare.
    """
    if isinstance(choice, int):
        return choice
    cores = decoding.cores()
    if cores == 1:
        return 0
    return cores - 1 if device.type == "cuda" else max(1, cores // CORES_PER_WORKER)


class Feed:
    """Batches of `pictures`, epoch after epoch, from worker processes that start once and work ahead.

    They prepare the next epoch's first batches while the last one is evaluated. Batches are the same for any number of
    workers; without any they are prepared when they are asked for. In a team every process gets its part of each batch.
    """

    def __init__(self, pictures: TrainingPictures, size: int, workers: int, members: Team = ALONE) -> None:
        self.pictures, self.size, self.workers, self.members = pictures, size, workers, members
        self.waited = 0.0  # seconds, over all epochs
        self._running: Iterator[tuple[torch.Tensor, torch.Tensor]] = iter(())
        self._next_epoch = -1

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of (images, targets) of one epoch; epochs that follow each other share their workers."""
        started = time.perf_counter()
        if epoch != self._next_epoch:
            # Without a generator of its own the loader would draw from the one that dropout draws from.
            own, plan = torch.Generator(), _Plan(self.pictures, self.size, self.members, epoch)
            loader = DataLoader(_Numbered(self.pictures), batch_sampler=plan, num_workers=self.workers, generator=own)
            self._running = iter(loader)
        self._next_epoch = -1  # until the epoch is through, nobody can carry on from here
        for indices in self.pictures.order(epoch, self.size):
            batch = next(self._running) if self.members.part(indices) else self._nothing()
            self.waited += time.perf_counter() - started
            yield batch
            started = time.perf_counter()
        self._next_epoch = epoch + 1

    def _nothing(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The part of a process where a batch has fewer pictures than there are processes."""
        side = self.pictures.resolution
        return torch.empty(0, 3, side, side), torch.empty(0, self.pictures.targets.shape[1])

    def close(self) -> None:
        """End the worker processes."""
        self._running, self._next_epoch = iter(()), -1


class _Plan:
    """Which pictures stand in which batch, without end, as (epoch, index)."""

    def __init__(self, pictures: TrainingPictures, size: int, members: Team, epoch: int) -> None:
        self.pictures, self.size, self.members, self.epoch = pictures, size, members, epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        while True:
            for indices in self.pictures.order(epoch, self.size):
                if own := self.members.part(indices):
                    yield [(epoch, index) for index in own]
            epoch += 1


class _Numbered(Dataset):
    """Items by (epoch, index): a worker can be at another epoch than the process that trains."""

    def __init__(self, pictures: TrainingPictures) -> None:
        self.pictures = pictures

    def __getitem__(self, number: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        self.pictures.epoch, index = number
        return self.pictures[index]
