"""Mixed batches against a loop over cells; what an unknown label may do; the same seed, the same batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stages.lib import loss, mixing

NAN = math.nan


def batch(n_images: int = 6, side: int = 16, unknown: float = 0.4) -> mixing.Batch:
    """Picture i is 1 in channel i and 0 in the others, so that a blend shows whom it is made of, and by what shares."""
    chance = np.random.default_rng(0)
    targets = chance.integers(0, 2, (n_images, 3)).astype(np.float32)
    targets[chance.random(targets.shape) < unknown] = NAN
    images = torch.eye(n_images).view(n_images, n_images, 1, 1).expand(n_images, n_images, side, side)
    return images.contiguous(), torch.from_numpy(targets)


def one(how: str, alpha: float = 1.0, seed: int = 1, given: mixing.Batch | None = None) -> mixing.Weighted:
    return next(mixing.mixed([given or batch()], how, alpha, seed))


def test_without_mixing_nothing_changes() -> None:
    images, targets = batch()
    found, labels, weights = one("none")
    assert torch.equal(found, images)
    assert torch.equal(labels.isnan(), targets.isnan())
    assert torch.equal(labels[~labels.isnan()], targets[~targets.isnan()])
    assert torch.equal(weights, (~targets.isnan()).float())


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
@pytest.mark.parametrize("seed", range(5))
def test_labels_are_mixed_as_the_pictures_are(how: str, seed: int) -> None:
    """The shares are read off the pictures; the rest is the definition, cell by cell."""
    _, targets = batch()
    found, labels, weights = one(how, seed=seed)
    if how == "mixup":
        assert (found == found[..., :1, :1]).all()
    else:
        assert set(found.unique().tolist()) <= {0.0, 1.0}
    shares = found.mean((2, 3))
    for row in range(len(targets)):
        assert len(shares[row].nonzero()) <= 2
        for column in range(3):
            parts = [(float(shares[row, of]), float(targets[of, column])) for of in range(6)]
            known = [(share, label) for share, label in parts if not math.isnan(label)]
            weight = sum(share for share, _ in known)
            assert float(weights[row, column]) == pytest.approx(weight, abs=1e-6)
            if weight == 0:
                assert math.isnan(labels[row, column])
            else:
                assert float(labels[row, column]) == pytest.approx(sum(s * label for s, label in known) / weight, abs=1e-5)


def test_the_loss_of_a_blend_is_that_of_both_labels_by_their_shares() -> None:
    own = torch.tensor([[1.0, 0.0, NAN, 1.0, NAN]])
    other = torch.tensor([[0.0, NAN, 1.0, 1.0, NAN]])
    logits, pos_weight, kept = torch.tensor([[0.3, -1.2, 2.0, 0.7, 5.0]]), torch.tensor([3.0, 0.5, 2.0, 1.0, 9.0]), 0.7
    targets, weights = mixing.blended(own, other, kept)
    total, weight = loss.masked_sum(logits, targets, pos_weight, weights)
    one_sum, one_known = loss.masked_sum(logits, own, pos_weight)
    two_sum, two_known = loss.masked_sum(logits, other, pos_weight)
    assert total.item() == pytest.approx((kept * one_sum + (1 - kept) * two_sum).item(), rel=1e-6)
    assert weight.item() == pytest.approx((kept * one_known + (1 - kept) * two_known).item(), rel=1e-6)


def test_what_neither_picture_knows_has_no_gradient() -> None:
    targets, weights = mixing.blended(torch.tensor([[NAN, 1.0]]), torch.tensor([[NAN, NAN]]), 0.6)
    logits = torch.zeros(1, 2, requires_grad=True)
    total, _ = loss.masked_sum(logits, targets, torch.ones(2), weights)
    total.backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.0, -0.3])


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_the_same_seed_gives_the_same_batches_and_each_batch_its_own_share(how: str) -> None:
    given = [batch(), batch()]
    once, again = (list(mixing.mixed(given, how, 1.0, 3)) for _ in range(2))
    for left, right in zip(once, again, strict=True):
        assert all(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in zip(left, right, strict=True))
    assert not torch.equal(once[0][0], once[1][0])
    assert not torch.equal(once[0][0], one(how, seed=4)[0])


def test_the_pasted_rectangle_has_the_share_that_the_labels_get() -> None:
    images, _ = batch(2, side=20)
    rectangle = mixing.rectangle_of(0.36, 20, 20, np.random.default_rng(0))
    found, kept = mixing.pasted(images, images.flip(0), rectangle)
    assert found[0, 1].mean().item() == pytest.approx(1 - kept) == pytest.approx(0.36)
    assert torch.equal(images, batch(2, side=20)[0])  # what came in is left alone


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_the_parts_of_a_batch_get_one_share_and_one_rectangle_whatever_their_size(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a team every process mixes its own part, with the seed of all."""
    drawn: list[list[object]] = []
    rectangle_of, blended = mixing.rectangle_of, mixing.blended
    monkeypatch.setattr(mixing, "rectangle_of", lambda *given: drawn[-1].append(rectangle_of(*given)) or drawn[-1][-1])
    monkeypatch.setattr(mixing, "blended", lambda *given: drawn[-1].append(given[2]) or blended(*given))
    for n_images in (2, 5, 6):
        drawn.append([])
        one(how, given=batch(n_images))
    assert len(drawn[0]) == 2
    assert drawn[0] == drawn[1] == drawn[2]


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_shares_are_drawn_from_a_beta_distribution_with_the_alpha_of_the_settings(alpha: float) -> None:
    """Variance of Beta(alpha, alpha): 1 / (4 (2 alpha + 1)); drawn for 2,000 batches of two pictures, 1 and 0."""
    images, targets = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1), torch.zeros(2, 1)
    drawn = np.array([float(found[0]) for found, _, _ in mixing.mixed([(images, targets)] * 2000, "mixup", alpha, 0)])
    shares = drawn[drawn < 1]  # 1: its own partner
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_a_batch_of_one_is_its_own_partner() -> None:
    images, targets = batch(1, unknown=0.0)
    found, labels, _ = one("mixup", given=(images, targets))
    torch.testing.assert_close(found, images)
    torch.testing.assert_close(labels, targets)
