"""BatchNorm folded into convolutions: the same answers, and no fold where it does not fit."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from stages.lib import backbones, folding, model

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)

SIDE = 64


def random_norms(network: nn.Module) -> nn.Module:
    """Statistics and weights as after training; fresh ones (0 and 1) would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.copy_(0.2 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
            if module.affine:
                module.weight.data.copy_(0.5 + torch.rand(module.num_features, generator=generator))
                module.bias.data.copy_(0.2 * torch.randn(module.num_features, generator=generator))
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def difference(one: nn.Module, other: nn.Module) -> float:
    given = torch.randn((3, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return float((torch.sigmoid(one(given)) - torch.sigmoid(other(given))).abs().max())


@pytest.mark.parametrize(
    "backbone", ["tf_efficientnet_lite0", "test_resnet", "resnet18", "efficientnet_b0", "mobilenetv3_small_100"]
)
def test_all_norms_of_usual_networks_are_folded(backbone: str) -> None:
    torch.manual_seed(0)
    network = random_norms(model.Tagger(backbones.create(backbone, "none", SIDE), 3, 16, (0.2, 0.2)))
    before, count = {name: tensor.clone() for name, tensor in network.state_dict().items()}, norms(network)
    found = folding.folded(network, SIDE)
    assert count > 0
    assert norms(found) == 0
    assert difference(network, found) <= 1e-5
    assert norms(network) == count
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("backbone", ["convnext_atto", "vit_tiny_patch16_224"])
def test_a_network_without_such_norms_is_as_before(backbone: str) -> None:
    network = model.Tagger(backbones.create(backbone, "none", SIDE), 3, 16, (0.2, 0.2)).eval()
    assert difference(network, folding.folded(network, SIDE)) <= 1e-6


class Shared(nn.Module):
    """Something else reads the convolution's output too: to fold would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        inner = self.conv(given)
        return (self.norm(inner) + inner).mean((2, 3))


class Twice(Shared):
    """One convolution before two norms: it can't be folded into both."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(4)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return (self.norm(self.conv(given)) * self.other(self.conv(given + 1))).mean((2, 3))


class Standardised(nn.Conv2d):
    """Changes its weights before it uses them."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(given, self.weight / self.weight.std(), self.bias)


@pytest.mark.parametrize("kind", [Shared, Twice])
def test_a_network_that_folding_would_change_is_left_alone(kind: type) -> None:
    torch.manual_seed(0)
    network = random_norms(kind())
    found = folding.folded(network, SIDE)
    assert norms(found) == norms(network)
    assert difference(network, found) <= 1e-6


def test_a_convolution_of_another_kind_is_left_alone() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(Standardised(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False), BatchNormAct2d(4))
    network = random_norms(nn.Sequential(inner, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    found = folding.folded(network, SIDE)
    assert norms(found) == 1
    assert difference(network, found) <= 1e-5


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_one_fold_by_hand(affine: bool, bias: bool) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3, groups=1, bias=bias), nn.BatchNorm2d(4, affine=affine, eps=0.1))
    network = random_norms(nn.Sequential(inner, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    found = folding.folded(network, SIDE)
    assert norms(found) == 0
    norm = inner[1]
    scale = (norm.weight if affine else 1) / torch.sqrt(norm.running_var + 0.1)
    torch.testing.assert_close(found[0][0].weight, inner[0].weight * scale[:, None, None, None])
    assert difference(network, found) <= 1e-5
