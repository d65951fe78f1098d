"""What the bench of speed lets run side by side, each in a process of its own: reference, ours, limit.

Each is a function that takes a `Spec` and returns what can be measured: name -> a function that works through all
pictures once. What it needs is prepared before and not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from stages.lib import (
    augment,
    backbones,
    decoding,
    feeding,
    fusing,
    images,
    inference,
    loss,
    memory,
    mixing,
    model,
    params,
    pixels,
    training,
    trunk,
    views,
)
from stages.lib.preprocessing import Preprocessing, to_input

ATTRIBUTES = 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Spec:
    """One network on one set of files; `folder` is for what has to be on disk."""

    backbone: str
    freeze: str
    resolution: int
    batch: int
    paths: list[Path]
    folder: Path
    augment: params.Augment


Measures = Mapping[str, Callable[[], object]]


def device() -> torch.device:
    return inference.device_of("auto")


def tagger(spec: Spec) -> model.Tagger:
    torch.manual_seed(0)
    network = model.Tagger(backbones.create(spec.backbone, "none", spec.resolution), ATTRIBUTES, 256, (0.3, 0.3))
    network.freeze(spec.freeze)
    return network


def targets(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (count, ATTRIBUTES)).astype(float)


class Originals(Dataset):
    """The files themselves, decoded whenever they are asked for."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform
        self.targets = torch.from_numpy(targets(len(paths))).float()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), self.targets[index]


def reference(spec: Spec) -> Measures:
    """The recipe as it is usually written: files decoded in every epoch, NCHW, the whole network in train mode."""
    network = tagger(spec).to(device())
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    last = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    strength = spec.augment
    training_view = transforms.Compose(
        [
            transforms.RandomResizedCrop(spec.resolution, scale=strength.crop_scale),
            transforms.RandomHorizontalFlip(strength.horizontal_flip),
            transforms.RandomVerticalFlip(strength.vertical_flip),
            transforms.ColorJitter(strength.brightness, strength.contrast, strength.saturation, strength.hue),
            transforms.RandomRotation(strength.rotation),
            transforms.RandomGrayscale(strength.grayscale),
            *last,
            transforms.RandomErasing(strength.erasing),
        ]
    )
    side = round(spec.resolution / 0.875)
    view = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(spec.resolution), *last])

    def loader(transform: Callable[[Image.Image], torch.Tensor], shuffle: bool) -> DataLoader:
        return DataLoader(Originals(spec.paths, transform), spec.batch, shuffle=shuffle, num_workers=decoding.cores())

    def train() -> None:
        for module in network.modules():  # the frozen ones too
            module.training = True
        for batch, truth in loader(training_view, True):
            optimizer.zero_grad()
            value = nn.functional.binary_cross_entropy_with_logits(network(batch.to(device())), truth.to(device()))
            value.backward()
            optimizer.step()
            value.item()

    def evaluate() -> None:
        network.eval()
        with torch.no_grad():
            for batch, _ in loader(view, False):
                network(batch.to(device())).cpu()

    def predict() -> None:
        network.eval()
        with torch.no_grad():
            for path in spec.paths:
                network(view(Image.open(path).convert("RGB"))[None].to(device())).cpu()

    return {"train": train, "evaluate": evaluate, "predict": predict}


def ours(spec: Spec) -> Measures:
    """The code of train, evaluate and predict."""
    memory.keep_freed()
    network = tagger(spec).to(memory_format=torch.channels_last)
    how = Preprocessing(256, "squash", spec.resolution, 1.0, MEAN, STD)
    open_one = partial(opened, images.Frame(how.side, how.fit, 120, 20))
    file = spec.folder / "pixels.npy"
    count = pixels.write(file, decoding.in_order(open_one, spec.paths), how.side)
    store, rows = pixels.read(file), np.arange(count)
    pictures = augment.TrainingPictures(store, rows, targets(count), how, spec.resolution, spec.augment, 0)
    feed = feeding.Feed(pictures, spec.batch, feeding.workers_of("auto", device()))
    frozen, rest = trunk.split(network, spec.resolution)
    frozen, rest = fusing.at_work(frozen, spec.resolution, device()), rest.to(device())
    recipe = training.Recipe(1e-4, 0.8, 0.01, 0.1, 10**6, 10**6)
    optimizer = torch.optim.AdamW(training.parameter_groups(rest, recipe), fused=True)
    weight, result, epochs = torch.ones(ATTRIBUTES, device=device()), training.Fit(), iter(range(1, 10**6))
    prepared = trunk.Prepared(frozen, store, rows, how, device())
    ready = fusing.at_work(tagger(spec).eval(), spec.resolution, device())

    def train() -> float:
        """Gives the share of the time that was spent waiting for data."""
        started, before = time.perf_counter(), feed.waited
        epoch = next(epochs)
        mixed = mixing.mixed(feed.batches(epoch), spec.augment.mix, spec.augment.mix_alpha, epoch)
        batches = trunk.through(frozen, mixed, device())
        steps = pictures.n_batches(spec.batch)
        training.train_one_epoch(rest, None, batches, steps, optimizer, weight, recipe, device(), epoch, result)
        feed.close()  # otherwise its workers would prepare the next epoch while another contender is measured
        return (feed.waited - before) / (time.perf_counter() - started)

    def train_on_views() -> None:
        """An epoch after the first ones with `train.views`: the trunk has seen each view, and does not run."""
        again = views.Views(feed, frozen, 1, device())
        with torch.no_grad():
            one = frozen(torch.randn(1, 3, spec.resolution, spec.resolution).to(device(), memory_format=torch.channels_last))
        again.kept[1] = one.expand(count, *one.shape[1:])  # what stands in them takes no time
        epoch, steps = next(epochs) + 1, pictures.n_batches(spec.batch)
        training.train_one_epoch(rest, None, again.batches(epoch), steps, optimizer, weight, recipe, device(), epoch, result)

    def evaluate_first() -> None:
        prepared.kept = []
        prepared.logits(rest)

    def predict() -> None:
        pending, found = decoding.in_order(open_one, spec.paths, at_once=32), []
        for start in range(0, count, 32):
            batch = np.stack([next(pending) for _ in range(min(32, count - start))])
            with torch.inference_mode():
                found.append(ready(to_input(batch, how).to(device(), memory_format=torch.channels_last)).cpu())

    return {
        "train": train,
        "train (views are kept)": train_on_views,
        "evaluate (first epoch)": evaluate_first,
        "evaluate": lambda: prepared.logits(rest),
        "predict": predict,
    }


def opened(frame: images.Frame, path: Path) -> np.ndarray:
    return np.array(images.open_square(path, frame).pixels)


def limit(spec: Spec) -> Measures:
    """The network alone on a batch in memory: no file, no augmentation, no optimizer."""
    memory.keep_freed()
    network = tagger(spec).to(device()).to(memory_format=torch.channels_last)
    batch = torch.randn(spec.batch, 3, spec.resolution, spec.resolution).to(device(), memory_format=torch.channels_last)
    truth, weight = torch.from_numpy(targets(spec.batch)).float().to(device()), torch.ones(ATTRIBUTES, device=device())
    steps = len(spec.paths) // spec.batch

    def train() -> None:
        network.train()
        for _ in range(steps):
            total, known = loss.masked_sum(network(batch), truth, weight)
            (total / known).backward()
            network.zero_grad(set_to_none=True)
        synchronise()

    def evaluate() -> None:
        network.eval()
        with torch.inference_mode():
            for _ in range(steps):
                network(batch)
        synchronise()

    return {"train": train, "evaluate": evaluate}


def synchronise() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


def flops_per_image(spec: Spec) -> float:
    """Floating-point operations of a training step for one picture: all forward, and the trained part twice more backward.

    By the forward pass alone: PyTorch's counter takes backward passes of grouped convolutions for those of full ones.
    """
    network = tagger(spec).eval()
    frozen, rest = trunk.split(network, spec.resolution)
    given = torch.randn(2, 3, spec.resolution, spec.resolution)
    counts = []
    for part in (frozen, rest.eval()):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            given = part(given)
        counts.append(counter.get_total_flops() / 2)
    return counts[0] + 3 * counts[1]


def matrix_product_rate(seconds: float = 2.0) -> float:
    """Floating-point operations per second of float32 matrix products, the best of many."""
    side = 2048 if device().type == "cpu" else 8192
    one, other = torch.randn(side, side, device=device()), torch.randn(side, side, device=device())
    best, ends = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < ends:
        started = time.perf_counter()
        one @ other
        synchronise()
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


CONTENDERS: dict[str, Callable[[Spec], Measures]] = {"reference": reference, "ours": ours, "limit": limit}
