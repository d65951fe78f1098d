"""Training batches that are ready when the network asks for them, and the seconds that it waited all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from stages.lib import decoding
from stages.lib.augment import TrainingPictures

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
    workers; without any they are prepared when they are asked for.
    """

    def __init__(self, pictures: TrainingPictures, size: int, workers: int) -> None:
        self.pictures, self.size, self.workers = pictures, size, workers
        self.waited = 0.0  # seconds, over all epochs
        self._running: Iterator[tuple[torch.Tensor, torch.Tensor]] = iter(())
        self._next_epoch = -1

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of (images, targets) of one epoch; epochs that follow each other share their workers."""
        started = time.perf_counter()
        if epoch != self._next_epoch:
            # Without a generator of its own the loader would draw from the one that dropout draws from.
            own, plan = torch.Generator(), _Plan(self.pictures, self.size, epoch)
            loader = DataLoader(_Numbered(self.pictures), batch_sampler=plan, num_workers=self.workers, generator=own)
            self._running = iter(loader)
        self._next_epoch = -1  # until the epoch is through, nobody can carry on from here
        for _ in range(self.pictures.n_batches(self.size)):
            batch = next(self._running)
            self.waited += time.perf_counter() - started
            yield batch
            started = time.perf_counter()
        self._next_epoch = epoch + 1

    def close(self) -> None:
        """End the worker processes."""
        self._running, self._next_epoch = iter(()), -1


class _Plan:
    """Which pictures stand in which batch, without end, as (epoch, index)."""

    def __init__(self, pictures: TrainingPictures, size: int, epoch: int) -> None:
        self.pictures, self.size, self.epoch = pictures, size, epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        while True:
            for indices in self.pictures.order(epoch, self.size):
                yield [(epoch, index) for index in indices]
            epoch += 1


class _Numbered(Dataset):
    """Items by (epoch, index): a worker can be at another epoch than the process that trains."""

    def __init__(self, pictures: TrainingPictures) -> None:
        self.pictures = pictures

    def __getitem__(self, number: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        self.pictures.epoch, index = number
        return self.pictures[index]
