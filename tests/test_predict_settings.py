"""predict's settings: test-time augmentation, precision, and that the order of files and workers changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageOps

from stages.lib import engine, files, images, params
from stages.lib.errors import UserError
from tests.project import ROOT, Project

PROBABILITIES = ["red_probability", "framed_probability"]


def changed(project: Project, **values: object) -> None:
    settings = yaml.safe_load((project / "params.yaml").read_text())
    settings["predict"] |= values
    (project / "params.yaml").write_text(yaml.safe_dump(settings))


def opened(place: Path) -> np.ndarray:
    return images.open_square(place, images.Frame(64, "squash", 100, 20)).pixels


def test_augmentation_averages_the_log_odds_of_a_picture_and_its_mirror_image(own: Project, tmp_path: Path) -> None:
    mirrored = tmp_path / "mirrored"
    mirrored.mkdir()
    for place in (own / "images").iterdir():
        with Image.open(place) as picture:
            ImageOps.mirror(picture).save(mirrored / place.name)
    _, plain, _ = own.tag(own / "images")
    _, flipped, _ = own.tag(mirrored)
    changed(own, tta=True)
    _, both, _ = own.tag(own / "images")
    _, same, _ = own.tag(mirrored)
    assert np.abs(plain[PROBABILITIES] - flipped[PROBABILITIES]).to_numpy().max() > 1e-4
    np.testing.assert_allclose(both[PROBABILITIES], same[PROBABILITIES], atol=1e-5)
    pictures = np.stack([opened(place) for place in sorted((own / "images").iterdir())])
    alone, averaged = (engine.Engine(own / "model.pth", "cpu", bf16=False, mirrored=mirrored) for mirrored in (False, True))
    expected = (alone.logits(pictures) + alone.logits(pictures[:, :, ::-1])) / 2
    np.testing.assert_allclose(averaged.logits(pictures), expected, atol=1e-4, rtol=1e-5)


def test_bf16_is_for_gpus_only(done: Project) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    exact = engine.Engine(done / "model.pth", "cpu", bf16=False, mirrored=False)
    asked = engine.Engine(done / "model.pth", "cpu", bf16=True, mirrored=False)
    np.testing.assert_array_equal(exact.logits(pictures), asked.logits(pictures))
    assert asked.precision == "PyTorch cpu float32"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_bf16_on_a_gpu_is_near(done: Project) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    exact = engine.Engine(done / "model.pth", "cpu", bf16=False, mirrored=False).logits(pictures)
    found = engine.Engine(done / "model.pth", "cuda", bf16=True, mirrored=False)
    assert found.precision == "PyTorch cuda bf16"
    np.testing.assert_allclose(1 / (1 + np.exp(-found.logits(pictures))), 1 / (1 + np.exp(-exact)), atol=0.02)


def test_workers_do_not_change_a_byte(own: Project) -> None:
    tables = []
    for workers in (1, 2, 5):
        changed(own, workers=workers)
        own.tag(own / "images")
        tables.append((own / "predictions.csv").read_bytes())
    assert tables[0] == tables[1] == tables[2]


def test_the_same_picture_under_two_names_has_one_answer(done: Project, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        shutil.copy(done / "images" / "1.png", tmp_path / name)
    done.run("predict", "--images", tmp_path, "--out", tmp_path / "out.csv")
    table = files.read_table(tmp_path / "out.csv", "predict")
    np.testing.assert_allclose(table[PROBABILITIES].iloc[0], table[PROBABILITIES].iloc[1], atol=1e-6)


@pytest.mark.parametrize("value", ["maybe", 1, None, "true"])
def test_a_switch_is_true_or_false(tmp_path: Path, value: object) -> None:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["predict"]["tta"] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=r"predict\.tta.*true or false"):
        params.load(tmp_path / "params.yaml", ("predict.tta",))
