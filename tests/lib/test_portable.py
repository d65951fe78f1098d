"""Preprocessing without PyTorch against preprocessing with it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from stages.lib import portable, preprocessing
from stages.lib.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("side", "resolution", "share"), [(64, 64, 1.0), (64, 48, 1.0), (64, 32, 0.875), (48, 80, 1.0), (65, 31, 0.9), (32, 1, 1.0)]
)
def test_to_input_is_that_of_preprocessing(side: int, resolution: int, share: float) -> None:
    how = Preprocessing(side, "squash", resolution, share, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pictures = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    expected = preprocessing.to_input(pictures, how).numpy()
    found = portable.to_input(pictures, how)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=2e-5)  # float32 sums in another order, of values up to 3


@pytest.mark.parametrize(("old", "new"), [(256, 192), (10, 10), (7, 20), (20, 7), (1, 5), (5, 1)])
def test_resizing_keeps_a_plain_picture_and_mirrors(old: int, new: int) -> None:
    places, found = portable.resizing(old, new)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new), places), found)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


def test_the_modules_of_prediction_do_not_import_torch() -> None:
    program = "import sys; from stages import predict; from stages.lib import portable; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
