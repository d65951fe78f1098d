"""Freezing, for every backbone and level, and the head."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from stages.lib import backbones, model, training
from stages.lib.errors import UserError
from stages.lib.params import FREEZE_LEVELS
from stages.lib.preprocessing import Preprocessing

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)

# Two steps on timm's own small ones, of the families that the large ones below leave out.
SMALL_FAMILIES = (
    "test_resnet",
    "test_efficientnet",
    "test_convnext",
    "test_vit",
    "test_byobnet",
    "mobilenetv3_small_050",
    "regnetx_002",
    "swin_tiny_patch4_window7_224",
)
BACKBONES = ("resnet50", "efficientnet_b0", "tf_efficientnet_lite0", "convnext_tiny", "vit_tiny_patch16_224")
SIDE = 64
SMALL = "test_resnet"  # timm's own for tests: 0.4 million parameters
HOW = Preprocessing(32, "squash", 32, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RECIPE = training.Recipe(lr=0.01, lr_decay=1.0, weight_decay=0.0, warmup=0.0, epochs=1, patience=1)


class NoStages(nn.Module):
    """A backbone of one piece."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.norm(self.body(pictures)).mean((2, 3))


@cache
def network_of(backbone: str) -> model.Tagger:
    """One network per backbone: each test compares it with itself, so that it may go on from where another left it."""
    torch.manual_seed(0)
    return model.Tagger(backbones.create(backbone, "none", SIDE), 2, 8, (0.2, 0.2))


def copy_of_state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def two_steps(network: model.Tagger, side: int = SIDE, recipe: training.Recipe = RECIPE) -> None:
    torch.manual_seed(1)
    targets = torch.tensor([[1.0, 0.0], [0.0, torch.nan], [1.0, 1.0]])
    batches = [(torch.randn(3, 3, side, side), targets, torch.ones(3, 2)) for _ in range(2)]
    optimizer = torch.optim.AdamW(training.parameter_groups(network, recipe))
    weight, device = torch.ones(2), torch.device("cpu")
    training.train_one_epoch(network, None, batches, 2, optimizer, weight, recipe, device, 1, training.Fit())


@pytest.mark.parametrize("freeze", FREEZE_LEVELS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_stays_bit_identical_and_the_rest_trains(backbone: str, freeze: str) -> None:
    network = network_of(backbone)
    network.freeze(freeze)
    before = copy_of_state(network)
    two_steps(network)
    after = network.state_dict()
    first = FREEZE_LEVELS.index(freeze)
    parameters = dict(network.named_parameters())
    frozen = [name for name in before if network.level(name) < first]
    assert [name for name in frozen if not torch.equal(before[name], after[name])] == []
    trained = [name for name in before if network.level(name) >= first]
    assert [name for name in trained if name in parameters and torch.equal(before[name], after[name])] == []
    # BatchNorm of trained stages goes on learning its statistics.
    statistics = [name for name in trained if name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert [name for name in statistics if torch.equal(before[name], after[name])] == []
    if freeze != "none":
        assert frozen
    assert any(name.startswith("head.") for name in trained)


@pytest.mark.parametrize("backbone", SMALL_FAMILIES)
def test_every_family_freezes(backbone: str) -> None:
    """What lies before layer3 gets no gradient and stays bit-identical, BatchNorm statistics included; the rest trains."""
    torch.manual_seed(0)
    network = model.Tagger(backbones.create(backbone, "none", 96), 2, 0, (0.0,))
    table = model.parameter_table(network)
    assert [name for name, count, _ in table if count == 0] == []
    network.freeze("layer3")
    before = copy_of_state(network)
    optimizer = torch.optim.AdamW(training.parameter_groups(network, RECIPE))
    for _ in range(2):
        network.train()
        network(torch.randn(3, 3, 96, 96)).square().mean().backward()
        optimizer.step()
    after, parameters = network.state_dict(), dict(network.named_parameters())
    assert {name for name, p in parameters.items() if p.grad is not None} == {n for n in parameters if network.level(n) >= 3}
    assert [name for name in before if network.level(name) < 3 and not torch.equal(before[name], after[name])] == []
    assert [name for name in parameters if network.level(name) >= 3 and torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("freeze", FREEZE_LEVELS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_parameter_table_counts_every_parameter_once(backbone: str, freeze: str) -> None:
    network = network_of(backbone)
    network.freeze(freeze)
    table = model.parameter_table(network)
    assert [name for name, _, _ in table] == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert sum(count for _, count, _ in table) == sum(p.numel() for p in network.parameters())
    assert sum(count for _, count, on in table if on) == sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert all(count > 0 for _, count, _ in table)
    assert [on for _, _, on in table] == [index >= FREEZE_LEVELS.index(freeze) for index in range(6)]


def test_resnet50_levels_hold_what_the_paper_says() -> None:
    """Parameters of the reference's backbone: conv1 and bn1, the four stages, and the head of this test."""
    counts = {name: count for name, count, _ in model.parameter_table(network_of("resnet50"))}
    assert counts == {
        "stem": 9_536,
        "layer1": 215_808,
        "layer2": 1_219_584,
        "layer3": 7_098_368,
        "layer4": 14_964_736,
        "head": 2048 * 8 + 8 + 8 * 2 + 2,
    }


def test_frozen_parts_get_no_gradient_and_are_in_eval_mode() -> None:
    network = network_of("tf_efficientnet_lite0")
    network.freeze("layer3")
    network.zero_grad(set_to_none=True)
    network.eval()
    network.train()
    network(torch.randn(2, 3, SIDE, SIDE)).sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (network.level(name) < 3), name
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (network.level(name) >= 3), name
    assert network.head[0].training  # dropout of the head


def test_eval_reaches_every_module_and_none_thaws_everything() -> None:
    network = network_of("tf_efficientnet_lite0")
    network.freeze("all")
    network.eval()
    assert not any(module.training for module in network.modules())
    network.freeze("none")
    network.train()
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_frozen_outputs_are_the_same_in_train_and_eval_mode() -> None:
    network = network_of("tf_efficientnet_lite0")
    network.freeze("all")
    pictures = torch.randn(3, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(network.train().backbone(pictures), network.eval().backbone(pictures))


def test_an_unknown_level_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="layer9"):
        network_of("tf_efficientnet_lite0").freeze("layer9")


@pytest.mark.parametrize("freeze", FREEZE_LEVELS)
def test_a_model_without_stages_takes_none_and_all_only(freeze: str) -> None:
    torch.manual_seed(0)
    network = model.Tagger(NoStages(), 2, 0, (0.0, 0.0))
    if freeze.startswith("layer"):
        with pytest.raises(UserError, match=rf"no four stages that {freeze} could name; valid for it: none, all"):
            network.freeze(freeze)
        return
    network.freeze(freeze)
    before = copy_of_state(network)
    two_steps(network)
    same = {name for name, tensor in network.state_dict().items() if torch.equal(tensor, before[name])}
    in_backbone = {name for name in before if name.startswith("backbone.")}
    assert same == (in_backbone if freeze == "all" else set())
    body, head = model.parameter_table(network)
    assert body[:2] == ("backbone", sum(p.numel() for p in network.backbone.parameters()))
    assert head[:2] == ("head", sum(p.numel() for p in network.head.parameters()))
    assert (body[2], head[2]) == (freeze == "none", True)


@pytest.mark.parametrize(
    ("hidden", "kinds"), [(8, ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]), (0, ["Dropout", "Linear"])]
)
def test_the_head_is_the_references_or_linear(hidden: int, kinds: list[str]) -> None:
    network = model.Tagger(NoStages(), 3, hidden, (0.65, 0.4))
    assert [type(layer).__name__ for layer in network.head] == kinds
    assert [layer.p for layer in network.head if isinstance(layer, nn.Dropout)] == ([0.65, 0.4] if hidden else [0.65])
    assert network(torch.randn(5, 3, 16, 16)).shape == (5, 3)
