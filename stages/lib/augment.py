"""Training transforms of torchvision, one strength each in params.yaml, and the order of an epoch."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.transforms import v2

from stages.lib.chance import seed_for
from stages.lib.params import Augment
from stages.lib.pixels import Pictures
from stages.lib.preprocessing import Preprocessing, normalised

GREY = 128 / 255  # of the corners that a rotation leaves empty: near the mean of most normalisations


def transforms(strength: Augment, resolution: int) -> v2.Compose:
    """uint8 (3, side, side) -> float (3, resolution, resolution) from 0 to 1, with the chosen distortions.

    Colours and rotation work on floats: on bytes each of them would convert to floats and back.
    """
    jitter = (strength.brightness, strength.contrast, strength.saturation, strength.hue)
    steps: list[torch.nn.Module] = [
        v2.RandomResizedCrop(resolution, scale=strength.crop_scale, antialias=True),
        v2.RandomHorizontalFlip(strength.horizontal_flip),
        v2.RandomVerticalFlip(strength.vertical_flip),
        v2.ToDtype(torch.float32, scale=True),
    ]
    if any(jitter):
        steps.append(v2.ColorJitter(*jitter))
    if strength.rotation:
        steps.append(Rotation(strength.rotation))
    if strength.grayscale:
        steps.append(v2.RandomGrayscale(strength.grayscale))
    return v2.Compose(steps)


class Rotation(v2.RandomRotation):
    """By an angle drawn evenly up to the given degrees, either way; takes half the time of what it inherits."""

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        return rotated(inpt, params["angle"])


def rotated(picture: torch.Tensor, degrees: float) -> torch.Tensor:
    """A square float picture (3, side, side), turned counter-clockwise, bilinear; empty corners become GREY."""
    side, cos, sin = picture.shape[-1], math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    centres = (2 * torch.arange(side) + 1) / side - 1  # of pixels, from -1 to 1
    across, down = centres[None, :], centres[:, None]
    place = torch.stack([cos * across - sin * down, sin * across + cos * down], dim=-1)
    # Outside of the picture is 0, so what is GREY has to be 0 too.
    return functional.grid_sample((picture - GREY)[None], place[None], align_corners=False)[0] + GREY


class TrainingPictures(Dataset):
    """Augmented pictures of one epoch with their targets; item i is the same however it is loaded.

    Each picture has its own seed, from the run's seed, the fold, the epoch and its row: neither the order
    nor the number of worker processes changes what it becomes.
    """

    def __init__(
        self,
        store: Pictures,
        rows: np.ndarray,
        targets: np.ndarray,
        how: Preprocessing,
        resolution: int,
        strength: Augment,
        seed: int,
    ) -> None:
        """`resolution` is that of training; `how` is for evaluation, and gives the mean and deviation here."""
        self.store = store
        self.rows = rows
        self.targets = torch.from_numpy(targets[rows]).float()
        self.how = how
        self.seed = seed
        self.epoch = 0
        self.resolution = resolution
        self.transform = transforms(strength, resolution)
        self.erase = v2.RandomErasing(strength.erasing)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        picture = torch.from_numpy(np.array(self.store[self.rows[index]])).permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):
            # The CPU's generator alone: torch.manual_seed would also reset the GPU's, which dropout draws from.
            torch.default_generator.manual_seed(seed_for(self.seed, "augment", self.epoch, int(self.rows[index])))
            # Erased after normalising, so that the blank has the mean colour.
            return self.erase(normalised(self.transform(picture), self.how)), self.targets[index]

    def order(self, epoch: int, size: int) -> list[list[int]]:
        """Indices of each batch of an epoch; the last batch holds what is left, but never one image.

        BatchNorm can't be trained on a single image, so that one joins the batch before it.
        """
        order = torch.Generator().manual_seed(seed_for(self.seed, "order", epoch))
        shuffled = torch.randperm(len(self), generator=order).tolist()
        bounds = [size * index for index in range(self.n_batches(size))] + [len(self)]
        return [shuffled[start:end] for start, end in pairwise(bounds)]

    def n_batches(self, size: int) -> int:
        return n_batches(len(self), size)


def n_batches(n_images: int, size: int) -> int:
    """Batches of an epoch; a single image that is left over joins the batch before it."""
    full, left = divmod(n_images, size)
    return max(1, full + (left > 1))
