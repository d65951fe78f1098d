"""A network and a regression on what its backbone saw before: the share, the pair as one network, its way through model.pth."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from stages.lib import backbones, blending, folding, gradcam, model, model_file, trunk
from stages.lib.errors import UserError
from stages.lib.preprocessing import Preprocessing
from tests.lib.test_model import copy_of_state

NAMES = ["red", "framed"]
HOW = Preprocessing(64, "squash", 64, 1.0, (0.5,) * 3, (0.5,) * 3)


def noisy(truth: np.ndarray, noise: float, seed: int) -> np.ndarray:
    return 2 * (2 * np.nan_to_num(truth, nan=0.5) - 1) + np.random.default_rng(seed).normal(0, noise, truth.shape)


def labels(count: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (count, 3)).astype(float)
    truth[rng.random(truth.shape) < 0.2] = np.nan
    return truth


def slow_loss(log_odds: np.ndarray, truth: np.ndarray) -> float:
    """Cell by cell, with the temperature by SciPy."""

    def at(log_temperature: float) -> float:
        cells = []
        for x, y in zip(log_odds.ravel() / np.exp(log_temperature), truth.ravel(), strict=True):
            if not np.isnan(y):
                p = 1 / (1 + np.exp(-x))
                cells.append(-np.log(p if y else 1 - p))
        return float(np.mean(cells))

    return minimize_scalar(at, bounds=(-2, 2), method="bounded").fun


def test_the_share_is_that_of_the_lowest_loss() -> None:
    truth = labels()
    for noises in ((2.0, 2.0), (3.0, 1.5), (1.5, 3.0)):
        tuned, regression = noisy(truth, noises[0], 1), noisy(truth, noises[1], 2)
        losses = [slow_loss((1 - share) * tuned + share * regression, truth) for share in blending.SHARES]
        found = blending.chosen_share(tuned, regression, truth)
        assert found == blending.SHARES[int(np.argmin(losses))]
        assert blending.scaled_loss(tuned, truth) == pytest.approx(losses[0], rel=1e-3)  # a grid of temperatures


def test_two_that_err_in_different_ways_are_blended_and_a_poor_one_is_not() -> None:
    truth = labels()
    assert blending.chosen_share(noisy(truth, 2.5, 1), noisy(truth, 2.5, 2), truth) == 0.5
    assert blending.chosen_share(noisy(truth, 1.0, 1), noisy(truth, 30.0, 2), truth) == 0.0


def test_a_gain_below_what_it_is_worth_is_left_alone() -> None:
    truth = labels()
    tuned = noisy(truth, 2.5, 1)
    nearly = tuned + np.random.default_rng(3).normal(0, 0.05, tuned.shape)
    assert blending.chosen_share(tuned, nearly, truth) == 0.0


def test_overconfidence_alone_is_no_reason_to_blend() -> None:
    truth = labels()
    tuned = noisy(truth, 2.0, 1)
    # Half of it is the same ranking, less sure of itself: a temperature does the same.
    assert blending.chosen_share(4 * tuned, 0 * tuned, truth) == 0.0


def test_without_a_known_label_there_is_nothing_to_choose_by() -> None:
    nothing = np.full((5, 2), np.nan)
    assert blending.chosen_share(np.zeros((5, 2)), np.zeros((5, 2)), nothing) == 0.0


def pair(freeze: str, hidden: int = 8, name: str = "test_resnet") -> tuple[model.Tagger, model_file.Member]:
    """A network whose trained part has moved away from where it began, and the member of a regression with a quarter."""
    torch.manual_seed(0)
    network = model.Tagger(backbones.create(name, "none", 64), 2, hidden, (0.0, 0.0))
    network.freeze(freeze)
    before = {k: v.clone() for k, v in copy_of_state(network).items() if k.startswith("backbone.")}
    before = {k: v for k, v in before.items() if network.level(k) >= network.first_trained}
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    features = network.head[1].in_features if hidden else network.head[-1].in_features
    linear = {"head.1.weight": torch.randn(2, features), "head.1.bias": torch.randn(2)}
    return network.eval(), model_file.Member(copy_of_state(network), [1.5, 0.25], 1, 0.5, 0.25, before | linear)


def saved(member: model_file.Member, hidden: int = 8) -> model_file.Saved:
    return model_file.Saved("test_resnet", NAMES, hidden, [0.0, 0.0], HOW, {}, [member])


@pytest.mark.parametrize("freeze", ["none", "layer2", "layer4", "all"])
def test_a_saved_pair_says_what_both_say_by_their_shares(freeze: str, tmp_path: Path) -> None:
    network, member = pair(freeze)
    model_file.save(tmp_path / "model.pth", saved(member))
    (loaded,) = model_file.load(tmp_path / "model.pth").networks()
    images = torch.rand(3, 3, 64, 64)
    # By hand: the backbone with its first weights, and the linear head.
    before = deepcopy(network.backbone)
    own = before.state_dict()
    first = {k.removeprefix("backbone."): v for k, v in member.untouched.items() if k.startswith("backbone.")}
    before.load_state_dict(own | first)
    with torch.inference_mode():
        regression = before.eval()(images) @ member.untouched["head.1.weight"].T + member.untouched["head.1.bias"]
        expected = 0.75 * network(images) + 0.25 * regression
        torch.testing.assert_close(loaded(images), expected, atol=1e-5, rtol=1e-5)
        if freeze != "all":
            assert not torch.allclose(before(images), network.backbone(images), atol=1e-3)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize("freeze", ["none", "layer4", "all"])
def test_networks_of_one_split_have_the_same_say(freeze: str, share: float, count: int, tmp_path: Path) -> None:
    first, member = pair(freeze)
    networks = [first, *(deepcopy(first) for _ in range(count - 1))]
    with torch.no_grad():
        for parameter in (parameter for network in networks[1:] for parameter in network.parameters()):
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    states = [copy_of_state(network) for network in networks[1:]]
    others = [{k: v for k, v in state.items() if not torch.equal(v, member.state[k])} for state in states]
    both = replace(member, share=share, untouched=member.untouched if share else {}, others=others)
    model_file.save(tmp_path / "model.pth", saved(both))
    (loaded,) = model_file.load(tmp_path / "model.pth").networks()
    images = torch.rand(3, 3, 64, 64)
    (alone,) = saved(member).networks()
    assert isinstance(alone, blending.Blended)
    assert alone.untouched is not None
    with torch.inference_mode():
        assert not torch.allclose(first(images), networks[-1](images), atol=1e-3)
        expected = (1 - share) * sum(network(images) for network in networks) / count + share * alone.untouched(images)
        torch.testing.assert_close(loaded(images), expected, atol=1e-5, rtol=1e-5)
        once = folding.folded(trunk.shared(loaded, 64), 64)
        assert isinstance(once, blending.Blended)
        assert isinstance(once.trunk, nn.Identity) == (freeze == "none")
        torch.testing.assert_close(once(images), expected, atol=1e-4, rtol=1e-4)


def test_networks_that_kept_the_same_start_are_one(tmp_path: Path) -> None:
    """As with `head_start: regression`, where no epoch was better than the start."""
    first, member = pair("layer4")
    model_file.save(tmp_path / "model.pth", saved(replace(member, share=0.0, untouched={}, others=[{}])))
    (loaded,) = model_file.load(tmp_path / "model.pth").networks()
    assert not isinstance(loaded, blending.Blended)
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), first(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("freeze", "cut"), [("layer2", True), ("layer4", True), ("all", True), ("none", False)])
def test_a_shared_trunk_runs_once_and_changes_nothing(freeze: str, cut: bool) -> None:
    _, member = pair(freeze)
    (network,) = saved(member).networks()
    once = folding.folded(trunk.shared(network, 64), 64)
    assert isinstance(once, blending.Blended)
    assert isinstance(once.trunk, nn.Identity) != cut
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(once(images), network(images), atol=1e-4, rtol=1e-4)
    convolutions = [sum(isinstance(part, nn.Conv2d) for part in whole.modules()) for whole in (once, network)]
    assert (convolutions[0] < convolutions[1]) == cut


def test_a_network_of_one_is_left_as_it_is() -> None:
    network, _ = pair("layer4")
    assert trunk.shared(network, 64) is network


def test_grad_cam_explains_the_tuned_half() -> None:
    network, member = pair("layer4")
    (both,) = saved(member).networks()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    device = torch.device("cpu")
    found = gradcam.heatmap(both, pictures, [0, 1], HOW, device)
    np.testing.assert_allclose(found, gradcam.heatmap(network, pictures, [0, 1], HOW, device), atol=1e-5)


def test_what_both_have_alike_is_stored_once(tmp_path: Path) -> None:
    sizes = {}
    for freeze in ("none", "layer4"):
        _, member = pair(freeze)
        model_file.save(tmp_path / "model.pth", saved(member))
        sizes[freeze] = (tmp_path / "model.pth").stat().st_size
    whole = 4 * sum(tensor.numel() for tensor in member.state.values())
    assert sizes["none"] > 1.9 * whole
    assert sizes["layer4"] < 1.9 * whole


def test_folds_with_the_same_beginning_store_it_once(tmp_path: Path) -> None:
    _, member = pair("layer4")
    one = saved(member)
    model_file.save(tmp_path / "one.pth", one)
    again = deepcopy(member)
    again.state["head.1.weight"] = again.state["head.1.weight"] + 1
    model_file.save(tmp_path / "two.pth", model_file.Saved(**{**vars(saved(member)), "members": [member, again]}))
    added = (tmp_path / "two.pth").stat().st_size - (tmp_path / "one.pth").stat().st_size
    assert added < 0.2 * (tmp_path / "one.pth").stat().st_size


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"share": 1.0}, "share"),
        ({"share": -0.1}, "share"),
        ({"share": True}, "share"),
        ({"share": "much"}, "can't be used"),
        ({"untouched": {}}, "regression's weights"),
        ({"untouched": []}, "mapping"),
        ({"untouched": {"head.1.weight": torch.zeros(3, 4)}}, "regression's weights"),
        ({"untouched": {"head.1.weight": torch.full((2, 4), torch.nan)}}, "no numbers"),
    ],
)
def test_a_damaged_pair_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    _, member = pair("layer4")
    for name, value in change.items():
        setattr(member, name, value)
    content = {"format": model_file.FORMAT, **vars(saved(member)), "preprocessing": vars(HOW), "members": [vars(member)]}
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match=said):
        model_file.load(tmp_path / "model.pth")


def test_a_pair_that_does_not_fit_together_is_refused() -> None:
    _, member = pair("layer4")
    member.untouched["head.1.weight"] = torch.zeros(2, 4)
    with pytest.raises(UserError, match="do not fit"):
        saved(member).networks()
