"""Batches ahead of the network: the same for any number of workers, whichever epoch comes first; waiting is counted."""

from __future__ import annotations

import time
from unittest import mock

import pytest
import torch

from stages.lib import decoding, feeding
from stages.lib.augment import TrainingPictures
from tests.lib.test_augment import dataset

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)


def same(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1].nan_to_num(9), b[1].nan_to_num(9)) for a, b in zip(one, other, strict=True)
    )


def test_epochs_are_the_same_together_and_alone() -> None:
    alone = {epoch: list(feeding.Feed(dataset(), 2, 0).batches(epoch)) for epoch in (1, 2, 3)}
    for workers in (0, 1):
        feed = feeding.Feed(dataset(), 2, workers)
        assert all(same(list(feed.batches(epoch)), alone[epoch]) for epoch in (1, 2, 3, 2))
        feed.close()
    assert not same(alone[1], alone[2])


def test_an_epoch_that_was_left_early_starts_anew() -> None:
    expected = list(feeding.Feed(dataset(), 2, 0).batches(2))
    feed = feeding.Feed(dataset(), 2, 0)
    next(feed.batches(1))
    assert same(list(feed.batches(2)), expected)


def test_workers_start_once() -> None:
    feed = feeding.Feed(dataset(), 2, 1)
    with mock.patch.object(feeding, "DataLoader", wraps=feeding.DataLoader) as loader:
        for epoch in (1, 2, 3):
            list(feed.batches(epoch))
    feed.close()
    assert loader.call_count == 1


def test_what_the_network_waits_for_is_counted_and_its_own_time_is_not() -> None:
    feed = feeding.Feed(dataset(), 2, 0)
    slow, pause = TrainingPictures.__getitem__, 0.05

    def item(given: TrainingPictures, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(pause)
        return slow(given, index)

    with mock.patch.object(TrainingPictures, "__getitem__", item):
        first = sum(1 for _ in feed.batches(1))
    assert feed.waited >= pause * len(feed.pictures)
    before = feed.waited
    for _ in feed.batches(2):
        time.sleep(0.2)
    assert feed.waited - before < 0.2 * first


@pytest.mark.parametrize(
    ("choice", "cores", "device", "expected"),
    [
        (3, 2, "cpu", 3),
        (0, 8, "cuda", 0),
        ("auto", 1, "cpu", 0),
        ("auto", 2, "cpu", 1),
        ("auto", 32, "cpu", 4),
        ("auto", 16, "cuda", 15),
    ],
)
def test_workers_by_the_cores(choice: int | str, cores: int, device: str, expected: int) -> None:
    with mock.patch.object(decoding, "cores", return_value=cores):
        assert feeding.workers_of(choice, torch.device(device)) == expected
