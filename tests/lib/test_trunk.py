"""The frozen half apart from the trained one: together they are the network, before training and after it."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from stages.lib import backbones, inference, loss, mixing, model, training, trunk
from stages.lib.preprocessing import Preprocessing
from tests.lib.test_folding import random_norms

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)

SIDE = 64
CPU = torch.device("cpu")
HOW = Preprocessing(SIDE, "squash", SIDE, 1.0, (0.5,) * 3, (0.5,) * 3)


def tagger(backbone: str, freeze: str) -> model.Tagger:
    torch.manual_seed(0)
    network = model.Tagger(backbones.create(backbone, "none", SIDE), 3, 16, (0.0, 0.0))
    random_norms(network)
    network.freeze(freeze)
    return network.to(memory_format=torch.channels_last)


def pictures(n_images: int = 6) -> torch.Tensor:
    return torch.randn(n_images, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def targets(n_images: int = 6) -> torch.Tensor:
    return torch.randint(0, 2, (n_images, 3), generator=torch.Generator().manual_seed(2)).float()


@pytest.mark.parametrize("freeze", ["layer1", "layer3", "all"])
@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet18", "convnext_atto", "mobilenetv3_small_100"])
def test_both_halves_together_are_the_network(backbone: str, freeze: str) -> None:
    network = tagger(backbone, freeze)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    frozen, rest = trunk.split(network, SIDE)
    assert rest is not network
    with torch.no_grad():
        torch.testing.assert_close(rest.eval()(frozen(pictures())), network.eval()(pictures()), atol=1e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in rest.named_parameters() if parameter.requires_grad} == trained
    assert all(rest.level(name) == network.level(name) for name in trained)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("backbone", "freeze"), [("resnet18", "none"), ("vit_tiny_patch16_224", "layer3")])
def test_a_network_that_is_not_cut_stays_whole(backbone: str, freeze: str) -> None:
    network = tagger(backbone, freeze)
    frozen, rest = trunk.split(network, SIDE)
    assert rest is network
    assert torch.equal(frozen(pictures()), pictures())


class Skipping(nn.Module):
    """Its last stage also reads what its first one made, so that no single tensor stands between the halves."""

    num_features = 4
    feature_info = tuple({"reduction": 4 * 2**index, "module": f"layer{index + 1}"} for index in range(4))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        for index in range(4):
            setattr(self, f"layer{index + 1}", nn.Conv2d(4, 4, 1))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        first = self.stem(given)
        return (self.layer4(self.layer3(self.layer2(self.layer1(first)))) + first).mean((2, 3))


def test_a_network_that_the_halves_do_not_add_up_to_stays_whole() -> None:
    torch.manual_seed(0)
    network = model.Tagger(Skipping(), 3, 16, (0.0, 0.0))
    network.freeze("layer3")
    assert trunk.split(network, SIDE)[1] is network


def fitted(trained: model.Tagger, batches: list[mixing.Weighted]) -> training.Fit:
    losses = iter([2.0, 1.0])

    def evaluate(_: model.Tagger) -> dict[str, float]:
        return {"val_loss": next(losses), "val_ap": 0.5}

    recipe = training.Recipe(1e-4, 1.0, 0.0, 0.0, 2, 9)
    return training.fit(trained, lambda _: batches, 2, evaluate, np.ones(3), recipe, CPU, lambda _: None, lambda epoch: epoch)


@pytest.mark.parametrize("freeze", ["layer3", "all"])
def test_the_rest_learns_what_the_whole_does(freeze: str) -> None:
    network = tagger("tf_efficientnet_lite0", freeze)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    given = list(mixing.mixed([(pictures(), targets()), (pictures().flip(0, 3), targets().flip(0))], "none", 1.0, 0))
    frozen, rest = trunk.split(network, SIDE)
    whole = deepcopy(network)
    gradients = []
    for trained, batch in ((rest, next(trunk.through(frozen, given, CPU))[0]), (whole.train(), pictures())):
        loss.masked_sum(trained(batch), targets(), torch.ones(3))[0].backward()
        gradients.append({name: parameter.grad for name, parameter in trained.named_parameters() if parameter.grad is not None})
        trained.zero_grad()
    assert list(gradients[0]) == list(gradients[1])
    found, expected = (torch.cat([gradient.flatten() for gradient in every.values()]) for every in gradients)
    assert (found - expected).norm() <= 0.01 * expected.norm()  # rounding moves a few pixels over the kinks of ReLU6
    halves, at_once = fitted(rest, list(trunk.through(frozen, given, CPU))), fitted(whole, given)
    losses = [[row["loss"] for row in fit.iterations] for fit in (halves, at_once)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    state = trunk.joined(network, halves.state)
    assert list(state) == list(at_once.state)
    for name, tensor in state.items():
        if network.level(name) < network.first_trained:
            assert torch.equal(tensor, before[name]), name
        else:
            assert torch.equal(tensor, halves.state[name]), name
            assert not tensor.is_floating_point() or not torch.equal(tensor, before[name]), name


class Counting(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, 0

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        self.seen += len(given)
        return self.inner(given)


@pytest.mark.parametrize(("room", "times"), [(2**29, 1), (0, 3)])
def test_unchanging_pictures_go_through_the_trunk_once_where_there_is_room(
    room: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk, "KEPT_BYTES", room)
    monkeypatch.setitem(inference.BATCH, "cpu", 4)
    network = tagger("resnet18", "layer3")
    frozen, rest = trunk.split(network, SIDE)
    counting = Counting(frozen)
    store = np.random.default_rng(0).integers(0, 256, (12, SIDE, SIDE, 3), dtype=np.uint8)
    rows = np.array([7, 0, 3, 4, 11, 2])
    prepared = trunk.Prepared(counting, store, rows, HOW, CPU)
    for _ in range(3):
        expected = inference.logits(network, store, rows, HOW, CPU)
        np.testing.assert_allclose(prepared.logits(rest), expected, atol=1e-4)
        with torch.no_grad():  # training goes on between evaluations
            for one, other in zip(rest.head.parameters(), network.head.parameters(), strict=True):
                one.add_(0.1)
                other.add_(0.1)
    assert counting.seen == times * len(rows)
