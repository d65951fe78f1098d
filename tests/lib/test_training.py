"""The fit: it learns, stops in time, keeps the best state, and counts its loss rightly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stages.lib import backbones, inference, loss, mixing, model, training
from stages.lib.errors import UserError
from stages.lib.mixing import Weighted

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)

CPU = torch.device("cpu")


class Tiny(nn.Module):
    """A backbone small enough to train in milliseconds."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.body(pictures).mean((2, 3))


def tiny(n_attributes: int = 2) -> model.Tagger:
    torch.manual_seed(0)
    return model.Tagger(Tiny(), n_attributes, 16, (0.0, 0.0))


def recipe(**changes: Any) -> training.Recipe:
    given = {"lr": 0.02, "lr_decay": 1.0, "weight_decay": 0.0, "warmup": 0.0, "epochs": 3, "patience": 100}
    return training.Recipe(**(given | changes))


def one_batch(n_images: int = 8) -> Weighted:
    generator = torch.Generator().manual_seed(4)
    targets = torch.randint(0, 2, (n_images, 2), generator=generator).float()
    targets[1, 0] = torch.nan
    return weighted(torch.randn(n_images, 3, 16, 16, generator=generator), targets)


def weighted(pictures: torch.Tensor, targets: torch.Tensor) -> Weighted:
    """A batch as it comes where nothing is mixed."""
    return next(mixing.mixed([(pictures, targets)], "none", 1.0, 0))


def fitted(
    network: model.Tagger,
    how: training.Recipe,
    evaluate: Callable[[model.Tagger], dict[str, float]],
    batches: list[Weighted] | None = None,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
) -> training.Fit:
    given = batches or [one_batch()]
    weight = np.ones(given[0][1].shape[1])
    return training.fit(network, lambda epoch: given, len(given), evaluate, weight, how, CPU, log, lambda epoch: epoch)


def sequence(values: list[float]) -> Callable[[model.Tagger], dict[str, float]]:
    """An evaluation that gives these losses, one per epoch."""
    given: Iterator[float] = iter(values)
    return lambda network: {"val_loss": next(given), "val_ap": 0.5}


def test_one_batch_is_learnt_by_heart() -> None:
    result = fitted(tiny(), recipe(epochs=120), sequence([1.0] * 120))
    assert result.iterations[0]["loss"] > 0.5
    assert result.iterations[-1]["loss"] < 0.01


def test_training_stops_after_patience_epochs_and_keeps_the_best_state() -> None:
    network = tiny()
    states = []

    def evaluate(trained: model.Tagger) -> dict[str, float]:
        states.append({name: tensor.clone() for name, tensor in trained.state_dict().items()})
        return {"val_loss": [0.9, 0.7, 0.8, 0.7, 0.75, 0.1][len(states) - 1], "val_ap": 0.5}

    rows: list[dict[str, Any]] = []
    result = fitted(network, recipe(epochs=20, patience=3), evaluate, log=rows.append)
    assert len(states) == 5  # epoch 2 was best; an equal loss in epoch 4 is no better one
    assert (result.epoch, result.val_loss) == (2, 0.7)
    assert all(torch.equal(result.state[name], tensor) for name, tensor in states[1].items())
    assert any(not torch.equal(result.state[name], tensor) for name, tensor in states[4].items())
    assert [row["epoch"] for row in result.epochs] == [1, 2, 3, 4, 5]
    assert [row["val_loss"] for row in result.epochs] == [0.9, 0.7, 0.8, 0.7, 0.75]
    assert [row["better"] for row in rows] == [True, True, False, False, False]


def test_a_loss_that_keeps_falling_is_trained_to_the_end() -> None:
    result = fitted(tiny(), recipe(epochs=6, patience=1), sequence([6, 5, 4, 3, 2, 1]))
    assert (result.epoch, result.val_loss, len(result.epochs)) == (6, 1, 6)


def test_patience_counts_from_the_last_best_epoch() -> None:
    result = fitted(tiny(), recipe(epochs=20, patience=2), sequence([5, 6, 4, 6, 3, 6, 6, 0]))
    assert (result.epoch, len(result.epochs)) == (5, 7)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_names_the_epoch(value: float) -> None:
    with pytest.raises(UserError, match=f"validation loss of epoch 2 is {value}"):
        fitted(tiny(), recipe(), sequence([1.0, value]))


def test_a_training_loss_that_is_not_finite_names_the_epoch_and_changes_nothing_more() -> None:
    network = tiny()
    pictures, targets, weights = one_batch()
    bad = torch.full_like(pictures, torch.nan)
    epochs = {1: [one_batch()], 2: [one_batch(), (bad, targets, weights)]}
    seen = []

    def evaluate(trained: model.Tagger) -> dict[str, float]:
        seen.append(1)
        return {"val_loss": 1.0, "val_ap": 0.5}

    with pytest.raises(UserError, match=r"training loss became nan in epoch 2, iteration 3: lower lr"):
        training.fit(network, epochs.__getitem__, 1, evaluate, np.ones(2), recipe(), CPU, lambda row: None, lambda epoch: epoch)
    assert len(seen) == 1
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def closed_form(step: int, steps: int, rising: int) -> float:
    if step < rising:
        return (step + 1) / rising
    return math.cos(math.pi / 2 * (step - rising) / (steps - rising)) ** 2


@pytest.mark.parametrize(("steps", "warmup", "rising"), [(100, 0.1, 10), (40, 0.0, 0), (7, 0.3, 2), (1, 0.1, 0), (3, 0.99, 3)])
def test_learning_rate_rises_linearly_and_falls_as_a_cosine(steps: int, warmup: float, rising: int) -> None:
    found = [training.lr_factor(step, steps, warmup) for step in range(steps)]
    assert found == pytest.approx([closed_form(step, steps, rising) for step in range(steps)], abs=1e-12)
    assert max(found) == pytest.approx(1)
    assert min(found) > 0
    differences = np.diff(found[:rising])
    np.testing.assert_allclose(differences, 1 / max(rising, 1), atol=1e-12)
    assert (np.diff(found[rising:]) < 0).all()
    if steps >= 40:
        assert found[-1] < 0.002


def test_the_schedule_reaches_the_optimizer() -> None:
    """With one parameter group the table's rate is the one that each step was made with."""
    result = fitted(tiny(), recipe(lr=0.5, warmup=0.25, epochs=4), sequence([1.0] * 4), [one_batch(), one_batch()])
    assert [row["lr"] for row in result.iterations] == pytest.approx([0.5 * closed_form(step, 8, 2) for step in range(8)])
    assert [row["iteration"] for row in result.iterations] == list(range(1, 9))
    assert [row["epoch"] for row in result.iterations] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_first_step_of_adamw_is_as_long_as_the_learning_rate() -> None:
    """Adam's first step is lr * sign(gradient), so that the step itself shows each level's rate."""
    torch.manual_seed(0)
    network = model.Tagger(backbones.create("test_resnet", "none", 32), 2, 8, (0.0, 0.0))
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    how = recipe(lr=0.008, lr_decay=0.5, epochs=1)
    batch = weighted(torch.randn(8, 3, 32, 32), torch.randint(0, 2, (8, 2)).float())
    fitted(network, how, sequence([1.0]), [batch])
    longest = [0.0] * 6
    for name, parameter in network.named_parameters():
        step = (parameter.detach() - before[name]).abs().max().item()
        longest[network.level(name)] = max(longest[network.level(name)], step)
    assert longest == pytest.approx([0.008 * 0.5 ** (5 - level) for level in range(6)], rel=0.01)


def test_the_first_step_of_a_warm_up_is_a_share_of_the_learning_rate() -> None:
    """One of four rising iterations: a quarter of it, by the length of Adam's first step."""
    network, how = tiny(), recipe(lr=0.008, warmup=0.5)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.AdamW(training.parameter_groups(network, how))
    how_long = recipe(lr=0.008, warmup=0.5, epochs=2)
    training.train_one_epoch(network, None, [one_batch()], 4, optimizer, torch.ones(2), how_long, CPU, 1, training.Fit())
    steps = [(parameter.detach() - before[name]).abs().max().item() for name, parameter in network.named_parameters()]
    assert max(steps) == pytest.approx(0.008 / 4, rel=0.01)


@pytest.mark.parametrize("freeze", ["none", "layer2", "all"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_nfnet"])
def test_parameter_groups(backbone: str, freeze: str) -> None:
    network = model.Tagger(backbones.create(backbone, "none", 32), 2, 8, (0.0, 0.0))
    network.freeze(freeze)
    groups = training.parameter_groups(network, recipe(lr=0.1, lr_decay=0.3, weight_decay=0.05))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    grouped = [names[id(parameter)] for group in groups for parameter in group["params"]]
    wanted = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(wanted)  # every trained one once, no frozen one
    modules = dict(network.named_modules())
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            expected_lr = 0.1 * 0.3 ** (5 - network.level(name))
            assert group["lr"] == pytest.approx(expected_lr)
            assert group["base_lr"] == pytest.approx(expected_lr)
            owner, _, kind = name.rpartition(".")
            matrix = kind == "weight" and isinstance(modules[owner], nn.Conv2d | nn.Linear)  # not the gains of an NFNet
            assert group["weight_decay"] == (0.05 if matrix else 0.0), name


def test_weight_decay_shrinks_weights_and_spares_biases() -> None:
    """Without a known label there is no gradient: what moves, weight decay has moved."""
    network = tiny()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    pictures, targets, _ = one_batch()
    batches = [weighted(pictures, torch.full_like(targets, torch.nan))]
    fitted(network, recipe(lr=0.1, weight_decay=0.5, epochs=1), sequence([1.0]), batches)
    for name, parameter in network.named_parameters():
        factor = 1 - 0.1 * 0.5 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_the_loss_of_an_epoch_is_over_all_its_known_labels() -> None:
    """Not the mean of the batches' means: the last batch here has one known label of 11."""
    generator = torch.Generator().manual_seed(2)
    targets = [torch.randint(0, 2, (4, 3), generator=generator).float(), torch.full((2, 3), torch.nan)]
    targets[0][0, 0] = targets[0][2, 1] = torch.nan
    targets[1][1, 2] = 1.0
    batches = [weighted(torch.randn(len(target), 3, 16, 16, generator=generator), target) for target in targets]
    network = tiny(3)
    weight = torch.tensor([0.5, 3.0, 7.0])
    # A learning rate of nearly nothing: the network stays what it is, and the loss can be had by hand.
    optimizer = torch.optim.AdamW(training.parameter_groups(network, recipe(lr=1e-12)))
    result = training.Fit()
    found = training.train_one_epoch(network, None, batches, 2, optimizer, weight, recipe(lr=1e-12), CPU, 1, result)
    total, known, means = 0.0, 0, []
    for pictures, target, _ in batches:
        cells = loss.cells(network.train()(pictures).detach().numpy(), target.numpy(), weight.numpy())
        total, known = total + np.nansum(cells), known + (~np.isnan(cells)).sum()
        means.append(np.nanmean(cells))
    assert known == 11
    assert found == pytest.approx(total / known, rel=1e-5)
    assert found != pytest.approx(np.mean(means), rel=0.01)
    assert [row["loss"] for row in result.iterations] == pytest.approx(means, rel=1e-5)


def test_an_epoch_without_a_known_label_has_no_loss() -> None:
    pictures, targets, _ = one_batch()
    network = tiny()
    optimizer = torch.optim.AdamW(training.parameter_groups(network, recipe()))
    batches = [weighted(pictures, torch.full_like(targets, torch.nan))]
    assert training.train_one_epoch(network, None, batches, 1, optimizer, torch.ones(2), recipe(), CPU, 1, training.Fit()) == 0


def test_dropout_is_drawn_anew_in_every_epoch_and_alike_in_every_run() -> None:
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        network = model.Tagger(Tiny(), 2, 16, (0.5, 0.5))
        torch.manual_seed(len(losses))  # what was drawn before does not matter
        losses.append([row["loss"] for row in fitted(network, recipe(lr=1e-12), sequence([1.0] * 3)).iterations])
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 3


def test_averaged_weights_are_what_is_scored_and_kept() -> None:
    """By hand: after each step average = decay * average + (1 - decay) * weights, with a decay that rises to the set one."""
    states, scored = [], []

    class Watched(model.Tagger):
        def train(self, mode: bool = True) -> model.Tagger:  # the last thing before a pass, and so before a step
            states.append({name: tensor.detach().clone() for name, tensor in self.state_dict().items()})
            return super().train(mode)

    torch.manual_seed(0)
    network = Watched(Tiny(), 2, 16, (0.0, 0.0))
    states.clear()

    def evaluate(trained: model.Tagger) -> dict[str, float]:
        scored.append({name: tensor.clone() for name, tensor in trained.state_dict().items()})
        return {"val_loss": 1 / len(scored), "val_ap": 0.5}

    result = fitted(network, recipe(epochs=4, ema=0.5), evaluate)
    after = [*[state for state in states if state][-3:], network.state_dict()]  # of epochs 1 to 4, one batch each
    expected = states[-4]
    for step, (state, found) in enumerate(zip(after, scored, strict=True)):
        decay = min(0.5, 1 - (1 + step) ** (-2 / 3))  # 0, 0.37, 0.5, 0.5
        for name, tensor in state.items():
            whole = not tensor.is_floating_point()
            expected[name] = tensor.clone() if whole else decay * expected[name] + (1 - decay) * tensor
            torch.testing.assert_close(found[name], expected[name])
    assert all(torch.equal(result.state[name], tensor) for name, tensor in scored[-1].items())
    assert any(not torch.allclose(result.state[name], tensor) for name, tensor in network.state_dict().items())


def test_averaging_leaves_frozen_parts_as_they_are_bit_for_bit() -> None:
    torch.manual_seed(0)
    network = model.Tagger(backbones.create("test_efficientnet", "none", 32), 2, 0, (0.0, 0.0))
    network.freeze("layer3")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batch = weighted(torch.randn(8, 3, 32, 32), torch.randint(0, 2, (8, 2)).float())
    result = fitted(network, recipe(epochs=3, ema=0.9), sequence([3.0, 2.0, 1.0]), [batch])
    frozen = [name for name in before if network.level(name) < network.first_trained]
    assert len(frozen) > 10
    assert [name for name in frozen if not torch.equal(result.state[name], before[name])] == []


def test_the_network_as_it_comes_competes_as_epoch_0_where_asked() -> None:
    network = tiny()
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    values = sequence([1.0, 2.0, 3.0, 4.0])
    result = training.fit(
        network, lambda _: [one_batch()], 1, values, np.ones(2), recipe(patience=2), CPU, lambda _: None, int, score_start=True
    )
    assert (result.epoch, result.val_loss, len(result.epochs)) == (0, 1.0, 2)
    assert all(torch.equal(result.state[name], tensor) for name, tensor in start.items())


def test_half_the_bits_are_for_the_forward_pass_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, tried on the CPU: about the same losses, while weights, optimizer, loss and evaluation keep all bits."""
    assert not inference.precision(CPU, True)._enabled  # a CPU computes as before, whatever the setting says
    expected = fitted(tiny(), recipe(epochs=3), sequence([3.0, 2.0, 1.0]))
    monkeypatch.setattr(inference, "precision", lambda _, wanted: torch.autocast("cpu", torch.bfloat16, enabled=wanted))
    network, seen = tiny(), []
    network.head.register_forward_hook(lambda _, __, logits: seen.append((network.training, logits.dtype)))

    def evaluate(scored: model.Tagger) -> dict[str, float]:
        with torch.inference_mode():
            scored.eval()(one_batch()[0])
        return {"val_loss": 3.0 - len(seen) / 10, "val_ap": 0.5}

    found = fitted(network, recipe(epochs=3, bf16=True), evaluate)
    assert seen == [(True, torch.bfloat16), (False, torch.float32)] * 3
    losses = [[row["loss"] for row in fit.iterations] for fit in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]
    assert all(tensor.dtype != torch.bfloat16 for tensor in found.state.values())
