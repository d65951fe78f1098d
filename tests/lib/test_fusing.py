"""Convolutions with the activation after them: the same answers, and nothing fused that does not fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional

from stages.lib import backbones, folding, fusing, model
from tests.lib.test_folding import norms, random_norms

torch.set_num_threads(1)

SIDE = 64


def fused_in(network: nn.Module) -> list[fusing.Fused]:
    return [module for module in network.modules() if isinstance(module, fusing.Fused)]


def pictures(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn((count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [
        ("tf_efficientnet_lite0", "hardtanh"),
        ("test_resnet", "relu"),
        ("efficientnet_b0", "swish"),
        ("mobilenetv3_small_100", "hardswish"),
    ],
)
def test_usual_networks_answer_as_before(backbone: str, kind: str) -> None:
    torch.manual_seed(0)
    network = folding.folded(model.Tagger(backbones.create(backbone, "none", SIDE), 3, 16, (0.2, 0.2)).eval(), SIDE)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = fusing.fused(network, SIDE)
    convolutions = sum(type(module) in folding.CONVOLUTIONS for module in network.modules())
    assert len(fused_in(found)) == convolutions
    assert sum(module.after[0] == kind for module in fused_in(found)) > convolutions / 4
    with torch.inference_mode():
        for count in (1, 3, 8):
            given = pictures(count)
            torch.testing.assert_close(found(given), network(given), atol=1e-5, rtol=1e-5)
    assert not fused_in(network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Own(nn.Module):
    """A convolution, an activation, and what a test makes of them."""

    def __init__(self, activation: nn.Module, **how: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 3, **how)  # type: ignore[arg-type]
        self.activation = activation

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.activation(self.convolution(given)).mean((2, 3))


class Skip(Own):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        before = self.convolution(given)
        return (before + self.activation(before)).mean((2, 3))


class Twice(Own):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.activation(self.convolution(self.activation(self.convolution(given))[:, :3])).mean((2, 3))


class OtherReLU(nn.ReLU):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return functional.relu(given) + 1


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Own(nn.ReLU()), ["relu"]),
        (Own(nn.Tanh()), ["none"]),
        (Own(OtherReLU()), ["none"]),
        (Own(nn.ReLU(), padding_mode="reflect", padding=1), []),
        (Own(nn.ReLU(), padding="same"), []),
        (Own(nn.ReLU(), padding=2, stride=3, dilation=2, bias=False), ["relu"]),
        (Skip(nn.ReLU()), []),  # the sum reads what comes before the activation
        (Twice(nn.ReLU()), ["none"]),
    ],
)
def test_only_what_fits_is_fused(network: nn.Module, expected: list[str]) -> None:
    found = fusing.fused(network.eval(), SIDE)
    assert [module.after[0] for module in fused_in(found)] == expected
    with torch.inference_mode():
        torch.testing.assert_close(found(pictures(2)), network(pictures(2)), atol=1e-6, rtol=1e-5)


def test_pictures_of_another_size_get_weights_of_their_own() -> None:
    network = Own(nn.ReLU(), padding=1).eval()
    found = fusing.fused(network, SIDE)
    with torch.inference_mode():
        for side in (8, SIDE, 31):
            given = pictures(2)[..., :side, :side]
            torch.testing.assert_close(found(given), network(given), atol=1e-6, rtol=1e-5)
    assert len(fused_in(found)[0]._laid_out) == 1


def test_several_threads_get_the_bits_of_one() -> None:
    torch.manual_seed(0)
    network = fusing.fused(
        folding.folded(model.Tagger(backbones.create("test_resnet", "none", SIDE), 3, 16, (0.2, 0.2)), SIDE), SIDE
    )

    def run(seed: int) -> torch.Tensor:
        with torch.inference_mode():
            return network(pictures(4, seed))

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, range(12)))
    assert all(torch.equal(found, run(seed)) for seed, found in enumerate(together))


@pytest.mark.parametrize("error", [AttributeError("no such operator"), RuntimeError("other arguments")])
def test_a_pytorch_without_the_operator_runs_the_network_as_it_is(error: Exception) -> None:
    network = Own(nn.ReLU()).eval()
    with mock.patch.object(fusing.Fused, "forward", side_effect=error):
        assert fusing.fused(network, SIDE) is network


def test_a_fusion_that_answers_otherwise_is_dropped() -> None:
    network = Own(nn.ReLU()).eval()
    with mock.patch.dict(fusing.ACTIVATIONS, {nn.ReLU: ("swish", [])}):
        assert fusing.fused(network, SIDE) is network


def test_at_work_norms_are_folded_and_activations_fused() -> None:
    torch.manual_seed(0)
    network = model.Tagger(backbones.create("tf_efficientnet_lite0", "none", SIDE), 3, 16, (0.2, 0.2)).eval()
    random_norms(network)
    found = fusing.at_work(network, SIDE, torch.device("cpu"))
    assert norms(found) == 0
    assert len(fused_in(found)) == sum(type(module) in folding.CONVOLUTIONS for module in network.modules())
    with torch.inference_mode():
        torch.testing.assert_close(found(pictures(3)), network(pictures(3)), atol=1e-4, rtol=1e-4)
