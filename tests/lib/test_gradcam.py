"""Grad-CAM against a literal computation with hooks, families of backbones, and networks whose answer is known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from stages.lib import backbones, gradcam, preprocessing
from stages.lib.blending import Blended
from stages.lib.model import Tagger
from stages.lib.preprocessing import Preprocessing, to_input

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)

SIDE = 64
CPU = torch.device("cpu")
HALF = (0.5, 0.5, 0.5)
HOW = Preprocessing(SIDE, "squash", SIDE, 1.0, HALF, HALF)
CROPPED = Preprocessing(80, "crop", SIDE, 0.875, HALF, HALF)
COLUMNS = [0, 2, 1, 1]
# Features (n, channels, height, width); class token and patches; height, width, channels; mean over patches;
# a class token that only the last blocks know; attention over patches.
FAMILIES = ("resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "test_vit2", "xcit_nano_12_p16_224", "test_vit3")


@cache
def network_of(backbone: str) -> Tagger:
    torch.manual_seed(0)
    return Tagger(backbones.bare(backbone, SIDE), 3, 8, (0.2, 0.2))


def pictures_of(n: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def slow_heatmap(network: Tagger, layer: nn.Module, picture: np.ndarray, column: int, how: Preprocessing) -> np.ndarray:
    """One picture, one attribute, word for word from the paper, through a hook on `layer` and a whole backward pass."""
    kept: dict[str, torch.Tensor] = {}
    forward = layer.register_forward_hook(lambda module, inputs, output: kept.__setitem__("map", output))
    backward = layer.register_full_backward_hook(lambda module, inputs, outputs: kept.__setitem__("slope", outputs[0]))
    network.eval().zero_grad()
    network(to_input(picture[None], how))[0, column].backward()
    forward.remove(), backward.remove()
    network.zero_grad(set_to_none=True)
    maps, slopes = kept["map"][0].detach(), kept["slope"][0]
    weighted = torch.zeros(maps.shape[1:])
    for channel in range(len(maps)):
        weighted += slopes[channel].mean() * maps[channel]
    large = functional.interpolate(functional.relu(weighted)[None, None], (how.resolution, how.resolution), mode="bilinear")
    return (large[0, 0] / large.max() if large.max() > 0 else large[0, 0]).numpy()


@pytest.mark.parametrize("how", [HOW, CROPPED], ids=["whole", "cropped"])
def test_against_a_literal_computation_with_hooks(how: Preprocessing) -> None:
    network = network_of("tf_efficientnet_lite0")
    pictures = pictures_of(4, how.side)
    found = gradcam.heatmap(network, pictures, COLUMNS, how, CPU)
    expected = [
        slow_heatmap(network, network.backbone.bn2, *pair, how)  # bn2 is the last layer before pooling
        for pair in zip(pictures, COLUMNS, strict=True)
    ]
    # Sums of 1280 channels in another order, in single precision.
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)
    assert found.dtype == np.float32
    assert (found.max((1, 2)) == 1).any()


def test_of_a_class_token_against_hooks_on_the_last_block() -> None:
    network = network_of("vit_tiny_patch16_224").eval()
    tokens: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        inputs[0].retain_grad()
        tokens.append(inputs[0])

    hook = network.backbone.blocks[-1].register_forward_pre_hook(keep)
    pictures = pictures_of(1)
    network(to_input(pictures, HOW))[0, 1].backward()
    hook.remove()
    network.zero_grad(set_to_none=True)
    slopes, values = tokens[0].grad[0, 1:], tokens[0].detach()[0, 1:]  # the first is the class token
    weighted = functional.relu((values * slopes.mean(0)).sum(1)).view(1, 1, 4, 4)
    large = functional.interpolate(weighted, (SIDE, SIDE), mode="bilinear")[0, 0]
    found = gradcam.heatmap(network, pictures, [1], HOW, CPU)
    np.testing.assert_allclose(found[0], large / large.max(), atol=1e-4)  # single precision


@pytest.mark.parametrize("backbone", FAMILIES)
def test_families_of_backbones(backbone: str) -> None:
    network = network_of(backbone)
    found = gradcam.heatmap(network, pictures_of(4), COLUMNS, HOW, CPU)
    assert found.shape == (4, SIDE, SIDE)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert set(found.max((1, 2))) <= {0, 1}
    assert found.max() == 1
    assert (found.std((1, 2)) > 0).any()  # random weights, but not the same at every place


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", *FAMILIES])
def test_features_and_head_are_the_whole_network(backbone: str) -> None:
    body = network_of(backbone).eval().backbone
    batch = to_input(pictures_of(2), HOW)
    with torch.inference_mode():
        assert torch.equal(body.forward_head(body.forward_features(batch)), body(batch))


@pytest.mark.parametrize("backbone", ["test_resnet", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("freeze", ["none", "layer3", "all"])
def test_the_network_is_left_alone(backbone: str, freeze: str) -> None:
    network = network_of(backbone)
    expected = gradcam.heatmap(network, pictures_of(2), [0, 1], HOW, CPU)
    network.freeze(freeze)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        np.testing.assert_array_equal(gradcam.heatmap(network, pictures_of(2), [0, 1], HOW, CPU), expected)
        assert not torch.is_grad_enabled()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_pre_hooks for module in network.modules())
    network.freeze("none")


def test_nothing_below_the_map_is_differentiated() -> None:
    network = network_of("test_resnet")
    batch = to_input(pictures_of(1), HOW).requires_grad_()
    for body in (network.backbone, network_of("vit_tiny_patch16_224").backbone):
        layer, features = gradcam._explained(body, batch)
        assert layer is not None
        assert layer.is_leaf
        assert torch.autograd.grad(features.sum(), batch, allow_unused=True) == (None,)


class Grid(nn.Module):
    """Features: two channels of 4 x 4 places, the means of red and of green; the head sees one place of them only."""

    num_features = 2

    def __init__(self, place: tuple[int, int], last: bool = False) -> None:
        super().__init__()
        self.place, self.last = place, last

    def forward_features(self, batch: torch.Tensor) -> torch.Tensor:
        maps = functional.adaptive_avg_pool2d(batch[:, :2], 4)
        return maps.permute(0, 2, 3, 1) if self.last else maps

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        row, column = self.place
        return features[:, row, column] if self.last else features[:, :, row, column]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(batch))


def grid_network(weights: list[list[float]], last: bool = False) -> Tagger:
    network = Tagger(Grid((0, 0), last), len(weights), 0, (0.0, 0.0))
    with torch.no_grad():
        network.head[1].weight.copy_(torch.tensor(weights))
    return network


@pytest.mark.parametrize("last", [False, True])
def test_where_only_one_place_is_red_and_one_green(last: bool) -> None:
    """Attribute 0 is red, attribute 1 green; black (-1 after normalising) speaks against both."""
    pictures = np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8)
    pictures[:, 16:32, 32:48, 0] = 255  # place (1, 2)
    pictures[:, 48:64, 0:16, 1] = 255  # place (3, 0)
    found = gradcam.heatmap(grid_network([[1.0, 0.0], [0.0, 1.0]], last), pictures, [0, 1], HOW, CPU)
    assert found[0, 24, 40] == found[1, 63, 0] == 1
    # Bilinear enlarging reaches from the middle of a place (16 pixels wide) to the middles of its neighbours.
    red, green = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    red[8:40, 24:56] = green[40:64, 0:24] = True
    assert not found[0][~red].any()
    assert not found[1][~green].any()


def test_what_speaks_against_an_attribute_is_not_hot() -> None:
    white = np.full((1, SIDE, SIDE, 3), 255, dtype=np.uint8)
    assert not gradcam.heatmap(grid_network([[-1.0, 0.0]]), white, [0], HOW, CPU).any()
    assert (gradcam.heatmap(grid_network([[1.0, 0.0]]), white, [0], HOW, CPU) == 1).all()


@pytest.mark.parametrize(("one", "other"), [([1.0, -2.0], [-0.5, 1.5]), ([1.0, 0.0], [-2.0, 0.0]), ([0.0, 1.0], [0.0, 1.0])])
def test_the_layers_of_averaged_networks_are_weighed_together(one: list[float], other: list[float]) -> None:
    """By hand: both see the same two channels, so that their weights add up; what one is for, the other may be against."""
    networks = Blended([grid_network([one]), grid_network([other])], None, 0.0)
    pictures = pictures_of(3)
    maps = functional.adaptive_avg_pool2d(to_input(pictures, HOW)[:, :2], 4)
    weighted = functional.relu((maps * torch.tensor(one).add(torch.tensor(other)).view(1, 2, 1, 1)).sum(1))
    large = functional.interpolate(weighted[:, None], (SIDE, SIDE), mode="bilinear")[:, 0]
    expected = large / large.amax((1, 2), keepdim=True).clamp(min=1e-12)
    assert expected.max() == 1
    np.testing.assert_allclose(gradcam.heatmap(networks, pictures, [0, 0, 0], HOW, CPU), expected, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, torch.inf, torch.nan])
def test_a_map_without_a_usable_gradient_is_zero(weight: float) -> None:
    found = gradcam.heatmap(grid_network([[weight, 0.0]]), pictures_of(3), [0, 0, 0], HOW, CPU)
    np.testing.assert_array_equal(found, np.zeros((3, SIDE, SIDE)))


def test_a_logit_that_ignores_the_features() -> None:
    network = grid_network([[1.0, 0.0]])
    network.backbone.forward_head = lambda features: torch.ones(len(features), 2, requires_grad=True)
    assert not gradcam.heatmap(network, pictures_of(2), [0, 0], HOW, CPU).any()


@pytest.mark.parametrize("shape", [(2,), (2, 5), (2, 2, 2, 2), (4, 3, 3), (8, 1, 1)])
def test_features_without_places_give_zeros(shape: tuple[int, ...]) -> None:
    """A vector, five tokens (no square), three places, and channels that are at neither end."""
    network = grid_network([[1.0, 0.0]])
    network.backbone.forward_features = lambda batch: torch.ones(len(batch), *shape)
    network.backbone.forward_head = lambda features: features.flatten(1)[:, :2]
    assert gradcam.heatmap(network, pictures_of(2), [0, 0], HOW, CPU).shape == (2, SIDE, SIDE)
    assert not gradcam.heatmap(network, pictures_of(2), [0, 0], HOW, CPU).any()


@pytest.mark.parametrize("backbone", ["pit_ti_224", "tnt_s_patch16_224"])
def test_transformers_without_a_readable_last_block_give_zeros(backbone: str) -> None:
    body = network_of(backbone) if backbone.startswith("pit") else Tagger(backbones.bare(backbone, 224), 3, 0, (0.0, 0.0))
    side = SIDE if backbone.startswith("pit") else 224
    how = Preprocessing(side, "squash", side, 1.0, HALF, HALF)
    assert not gradcam.heatmap(body, pictures_of(1, side), [0], how, CPU).any()


def test_a_backbone_of_one_piece_gives_zeros() -> None:
    class OnePiece(nn.Module):
        num_features = 3

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return batch.mean((2, 3))

    found = gradcam.heatmap(Tagger(OnePiece(), 2, 0, (0.0, 0.0)), pictures_of(2), [0, 1], HOW, CPU)
    np.testing.assert_array_equal(found, np.zeros((2, SIDE, SIDE)))


def test_no_pictures() -> None:
    found = gradcam.heatmap(network_of("test_resnet"), pictures_of(0), [], HOW, CPU)
    assert (found.shape, found.dtype) == ((0, SIDE, SIDE), np.float32)


def test_more_pictures_than_a_block_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    network, pictures, columns = network_of("test_resnet"), pictures_of(5), np.array([0, 1, 2, 0, 1])
    at_once = gradcam.heatmap(network, pictures, columns, HOW, CPU)
    monkeypatch.setattr(gradcam, "BATCH", 2)
    # Kernels may sum in another order for another batch size.
    np.testing.assert_allclose(gradcam.heatmap(network, pictures, columns, HOW, CPU), at_once, atol=1e-4)


@pytest.mark.parametrize("share", [1.0, 0.875, 0.33])
def test_seen_is_what_the_network_sees(share: float) -> None:
    pictures = pictures_of(2, 81)
    found = preprocessing.seen(pictures, Preprocessing(81, "crop", SIDE, share, HALF, HALF))
    whole = Preprocessing(found.shape[1], "crop", SIDE, 1.0, HALF, HALF)
    expected = to_input(pictures, Preprocessing(81, "crop", SIDE, share, HALF, HALF))
    assert torch.equal(to_input(found, whole), expected)
