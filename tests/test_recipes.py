"""The named recipes in recipes/: settings in the form that `xargs -a FILE dvc exp run` hands on."""

from pathlib import Path

import pytest
import yaml

from stages import stats, train
from stages.lib import params
from tests.bench.recipe import variant

RECIPES = sorted(Path("recipes").glob("*.txt"))


def settings_of(recipe: Path) -> dict[str, str]:
    return dict(change.split("=", 1) for change in variant(f"x: @{recipe}").changes)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_word_is_a_setting_that_is_there_and_valid(recipe: Path, tmp_path: Path) -> None:
    words = recipe.read_text(encoding="utf-8").split()
    assert words[::2] == ["-S"] * (len(words) // 2)
    content = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for key, value in settings_of(recipe).items():
        section, _, name = key.rpartition(".")
        where = content[section] if section else content
        assert name in where
        where[name] = yaml.safe_load(value)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    params.load(path, (*stats.READS, *train.READS, "validate"))


def test_the_reference_recipe_leaves_nothing_of_training_to_the_default() -> None:
    """It must stay what it is when the default changes: it names all that train reads, but for what a row of its table
    changes (backbone, weights, freeze) and for what does not belong to a recipe."""
    named = settings_of(Path("recipes/reference.txt"))
    everything = params.flat(params.load(Path("params.yaml"), train.READS), train.READS)
    free = {"seed", "folds", "backbone", "weights", "freeze", "validate.side"}
    free |= {f"train.{name}" for name in ("device", "workers", "processes")} | {"augment.mix_alpha"}
    assert set(everything) - set(named) == free


def test_the_reference_recipe_is_that_of_the_reference() -> None:
    """Numbers of the reference's own script, as its users know them."""
    named = {key: yaml.safe_load(value) for key, value in settings_of(Path("recipes/reference.txt")).items()}
    assert named == {
        "lr": "5e-5",  # PyYAML takes it for text; params.py for a number
        "train.lr_decay": 0.1,
        "weight_decay": 0.01,
        "dropout": [0.65, 0.4],
        "epochs": 40,
        "train.patience": 5,
        "train.batch_size": 16,
        "train.warmup": 0,
        "train.hidden": 256,
        "stats.pos_weight": "balanced",
        "stats.pos_weight_min": 0.1,
        "stats.pos_weight_max": 20,
        "validate.fit": "crop",  # of 256 pixels, of which scoring sees the middle 224
        "train.resolution": 224,
        "train.test_resolution": 224,
        "train.center_crop": 0.875,
        "augment.crop_scale": [0.5, 1.0],
        "augment.horizontal_flip": 0.5,
        "augment.vertical_flip": 0.2,
        "augment.rotation": 25,
        "augment.brightness": 0.4,
        "augment.contrast": 0.4,
        "augment.saturation": 0.3,
        "augment.hue": 0.15,
        "augment.grayscale": 0.1,
        "augment.erasing": 0.2,
        # What it did not have.
        "train.head_start": "random",
        "train.ema": 0,
        "train.views": 0,
        "train.bf16": False,
        "train.blend": 0,
        "train.networks": 1,
        "augment.mix": "none",
    }
