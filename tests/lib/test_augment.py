"""Training pictures that depend on nothing but their seed, and what the network sees at evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from stages.lib import augment, feeding
from stages.lib.params import Augment
from stages.lib.preprocessing import Preprocessing, normalised, to_input

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)

HOW = Preprocessing(40, "squash", 32, 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLAIN = Augment(
    crop_scale=(1.0, 1.0),
    horizontal_flip=0.0,
    vertical_flip=0.0,
    rotation=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    grayscale=0.0,
    erasing=0.0,
    mix="none",
    mix_alpha=0.2,
)
STRONG = Augment(
    crop_scale=(0.5, 1.0),
    horizontal_flip=0.5,
    vertical_flip=0.5,
    rotation=20.0,
    brightness=0.4,
    contrast=0.4,
    saturation=0.3,
    hue=0.15,
    grayscale=0.2,
    erasing=0.5,
    mix="none",
    mix_alpha=0.2,
)
ROWS = np.array([11, 2, 3, 5, 7])


def pictures(number: int = 12, side: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, side, side, 3), dtype=np.uint8)


def dataset(strength: Augment = STRONG, how: Preprocessing = HOW, rows: np.ndarray = ROWS, seed: int = 1) -> Any:
    targets = np.arange(24, dtype=float).reshape(12, 2)
    targets[2, 1] = np.nan
    return augment.TrainingPictures(pictures(side=how.side), rows, targets, how, how.resolution, strength, seed)


def collected(given: Any, epoch: int, size: int, workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(feeding.Feed(given, size, workers).batches(epoch))
    return torch.cat([batch for batch, _ in batches]), torch.cat([targets for _, targets in batches])


def test_an_item_is_the_same_in_whatever_order_it_is_asked_for() -> None:
    forward = [dataset()[index][0] for index in range(5)]
    given = dataset()
    backward = [given[index][0] for index in reversed(range(5))][::-1]
    assert all(torch.equal(one, other) for one, other in zip(forward, backward, strict=True))
    assert torch.equal(given[3][0], given[3][0])


def test_an_item_depends_on_its_row_and_not_on_its_place() -> None:
    assert torch.equal(dataset(rows=ROWS)[2][0], dataset(rows=ROWS[2:])[0][0])


def test_batches_are_the_same_for_any_number_of_workers() -> None:
    alone, with_worker = (collected(dataset(), 3, 2, workers) for workers in (0, 1))
    assert torch.equal(alone[0], with_worker[0])
    torch.testing.assert_close(alone[1], with_worker[1], equal_nan=True)


def test_other_epochs_seeds_and_rows_differ() -> None:
    def item(epoch: int, seed: int) -> torch.Tensor:
        given = dataset(seed=seed)
        given.epoch = epoch
        return given[0][0]

    assert torch.equal(item(1, 1), item(1, 1))
    assert not torch.equal(item(1, 1), item(2, 1))
    assert not torch.equal(item(1, 1), item(1, 2))
    same = np.repeat(pictures(1), 12, axis=0)
    given = augment.TrainingPictures(same, ROWS, np.zeros((12, 1)), HOW, HOW.resolution, STRONG, 1)
    assert not torch.equal(given[0][0], given[1][0])  # one picture in two rows: two distortions


def test_global_generators_stay_as_they_are() -> None:
    torch.manual_seed(5)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    given = dataset()
    for index in range(5):
        given[index]
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(before_numpy, np.random.get_state()[1])


def test_what_a_pass_draws_does_not_depend_on_workers_or_distortions() -> None:
    """Dropout draws from the global generator while the batches come: it must find the same state."""
    states = []
    for strength, workers in ((STRONG, 0), (STRONG, 1), (PLAIN, 0)):
        torch.manual_seed(5)
        collected(dataset(strength), 1, 2, workers)
        states.append(torch.get_rng_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("n_images", [2, 3, 4, 5, 9, 12])
def test_batches_cover_every_row_once_and_none_holds_a_single_image(n_images: int, size: int) -> None:
    targets = np.arange(12.0).reshape(12, 1)
    rows = np.arange(12)[:n_images]
    given = augment.TrainingPictures(pictures(), rows, targets, HOW, HOW.resolution, PLAIN, 1)
    lengths, seen = [], []
    for batch, own in feeding.Feed(given, size, 0).batches(1):
        assert len(batch) == len(own)
        lengths.append(len(own))
        seen += own.flatten().tolist()
    assert sorted(seen) == list(range(n_images))
    assert len(lengths) == augment.n_batches(n_images, size)
    assert min(lengths) > 1
    assert max(lengths) <= size + 1
    assert all(length == size for length in lengths[:-1])


def test_a_single_image_is_one_batch() -> None:
    assert augment.n_batches(1, 8) == 1
    given = augment.TrainingPictures(pictures(), np.array([4]), np.zeros((12, 1)), HOW, HOW.resolution, PLAIN, 1)
    assert [len(batch) for batch, _ in feeding.Feed(given, 8, 0).batches(1)] == [1]


def test_the_order_changes_with_the_epoch_and_only_with_it() -> None:
    def order(epoch: int) -> list[float]:
        targets = np.arange(12.0).reshape(12, 1)
        given = augment.TrainingPictures(pictures(), np.arange(12), targets, HOW, HOW.resolution, PLAIN, 1)
        return collected(given, epoch, 4, 0)[1].flatten().tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != sorted(order(1))


def test_targets_go_with_their_pictures() -> None:
    given = dataset(PLAIN)
    for index, row in enumerate(ROWS):
        expected = np.arange(24, dtype=float).reshape(12, 2)[row]
        if row == 2:
            expected[1] = np.nan
        np.testing.assert_array_equal(given[index][1].numpy(), expected)


def test_without_strengths_the_picture_is_only_normalised() -> None:
    how = replace(HOW, resolution=40)
    given = dataset(PLAIN, how)
    for index, row in enumerate(ROWS):
        expected = (pictures()[row] / 255 - np.array(HOW.mean)) / np.array(HOW.std)
        np.testing.assert_allclose(given[index][0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("name", "axis"), [("horizontal_flip", 2), ("vertical_flip", 1)])
def test_a_flip_of_probability_1_always_flips(name: str, axis: int) -> None:
    how = replace(HOW, resolution=40)
    plain, flipped = dataset(PLAIN, how), dataset(replace(PLAIN, **{name: 1.0}), how)
    for index in range(5):
        assert torch.equal(flipped[index][0], plain[index][0].flip(axis))


def test_a_flip_of_one_half_flips_about_half() -> None:
    how = replace(HOW, resolution=40)
    plain, given = dataset(PLAIN, how), dataset(replace(PLAIN, horizontal_flip=0.5), how)
    flips = 0
    for epoch in range(40):
        given.epoch = epoch
        flips += not torch.equal(given[0][0], plain[0][0])
    assert 8 <= flips <= 32  # 40 tosses, four deviations


def test_erasing_blanks_a_rectangle_with_the_mean_colour() -> None:
    how = replace(HOW, resolution=40)
    plain, erased = dataset(PLAIN, how), dataset(replace(PLAIN, erasing=1.0), how)
    for index in range(5):
        before, after = plain[index][0], erased[index][0]
        changed = (before != after).any(0)
        rows, columns = torch.nonzero(changed.any(1)).flatten(), torch.nonzero(changed.any(0)).flatten()
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        assert (after[:, top:bottom, left:right] == 0).all()  # 0 is the mean, once normalised
        share = (bottom - top) * (right - left) / 40**2
        assert 0.01 < share < 0.4  # torchvision's: 2 to 33 %


def test_grayscale_of_probability_1_leaves_no_colour() -> None:
    how = replace(HOW, resolution=40, mean=(0.5,) * 3, std=(0.5,) * 3)
    item = dataset(replace(PLAIN, grayscale=1.0), how)[0][0]
    assert torch.equal(item[0], item[1])
    assert torch.equal(item[0], item[2])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "rotation"])
def test_each_strength_does_something(name: str) -> None:
    how = replace(HOW, resolution=40)
    changed = dataset(replace(PLAIN, **{name: 0.4 if name != "rotation" else 30.0}), how)[0][0]
    assert not torch.equal(changed, dataset(PLAIN, how)[0][0])


def test_crops_keep_the_share_of_the_area_that_is_asked_for() -> None:
    """On a ramp from left to right the span of values is the width of the crop."""
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[None, None, :, None], (1, 100, 100, 3)).copy()
    how = Preprocessing(100, "squash", 50, 1.0, (0.0,) * 3, (1.0,) * 3)
    for scale in (0.25, 0.64):
        given = augment.TrainingPictures(
            ramp, np.array([0]), np.zeros((1, 1)), how, how.resolution, replace(PLAIN, crop_scale=(scale, scale)), 1
        )
        for epoch in range(10):
            given.epoch = epoch
            item = given[0][0] * 255
            share_across = (item.max() - item.min()).item() / 100
            # torchvision's aspect ratios are 3/4 to 4/3, so that the width is sqrt(scale * ratio).
            assert (scale * 0.75) ** 0.5 - 0.06 < share_across < (scale * 4 / 3) ** 0.5 + 0.03


def slow_input(picture: np.ndarray, how: Preprocessing) -> np.ndarray:
    """By Pillow, which resizes each channel as a float picture with the same triangle filter."""
    kept = round(how.side * how.center_crop)
    start = (how.side - kept) // 2
    planes = []
    for channel in range(3):
        plane = Image.fromarray(picture[:, :, channel].astype(np.float32))
        plane = plane.crop((start, start, start + kept, start + kept))
        plane = plane.resize((how.resolution, how.resolution), Image.Resampling.BILINEAR)
        planes.append((np.asarray(plane) / 255 - how.mean[channel]) / how.std[channel])
    return np.stack(planes)


@pytest.mark.parametrize(("resolution", "crop"), [(40, 1.0), (32, 1.0), (32, 0.8), (17, 0.875), (64, 1.0), (20, 0.5), (35, 0.9)])
def test_to_input_crops_the_middle_resizes_and_normalises(resolution: int, crop: float) -> None:
    how = replace(HOW, resolution=resolution, center_crop=crop)
    found = to_input(pictures(3), how)
    assert found.shape == (3, 3, resolution, resolution)
    assert found.dtype == torch.float32
    for index in range(3):
        np.testing.assert_allclose(found[index].numpy(), slow_input(pictures(3)[index], how), atol=2e-4)


def test_normalised_values() -> None:
    batch = torch.stack([torch.full((2, 2), value) for value in HOW.mean])
    assert (normalised(batch, HOW) == 0).all()
    one_deviation = torch.stack([torch.full((2, 2), m + s) for m, s in zip(HOW.mean, HOW.std, strict=True)])
    torch.testing.assert_close(normalised(one_deviation[None], HOW), torch.ones(1, 3, 2, 2))


@pytest.mark.parametrize("degrees", [0.0, 10.0, -7.0, 33.0])
def test_a_rotation_is_that_of_torchvision_within_the_picture(degrees: float) -> None:
    """At the edges torchvision weighs the picture twice with the share of it that a pixel covers."""
    picture = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    found = augment.rotated(picture, degrees)
    expected = v2.functional.rotate(picture, degrees, v2.InterpolationMode.BILINEAR, fill=augment.GREY)
    inside = v2.functional.rotate(torch.ones(1, 40, 40), degrees, v2.InterpolationMode.BILINEAR)[0] > 1 - 1e-5
    assert inside.float().mean() > 0.6
    torch.testing.assert_close(found[:, inside], expected[:, inside], atol=1e-4, rtol=0)
    outside = v2.functional.rotate(torch.ones(1, 40, 40), degrees, v2.InterpolationMode.BILINEAR)[0] == 0
    assert (found[:, outside] == torch.tensor(augment.GREY)).all()
    assert outside.any() == bool(degrees)
