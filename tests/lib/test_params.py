from pathlib import Path

import pytest

from stages.lib import params
from stages.lib.errors import UserError

ROOT = Path(__file__).parents[2]


def problem(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        params.load(path, ())
    return str(caught.value)


def test_own_params_load():
    settings = params.load(ROOT / "params.yaml", ("seed", "freeze", "train", "augment"))
    assert settings.freeze in params.FREEZE_LEVELS
    assert settings.train.batch_size > 0


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("freeze", "layer9", "none, layer1, layer2, layer3, layer4, all"),
        ("freeze", False, "none, layer1"),  # what YAML 1.1 makes of a bare `no`
        ("dropout", 1.5, "two numbers, each at least 0 and below 1"),
        ("dropout", [0.1, 0.2, 0.3], "two numbers"),
        ("dropout", ["a", 0.2], "two numbers"),
        ("lr", 0, "a number above 0"),
        ("lr", "fast", "a number above 0"),
        ("lr", True, "a number above 0"),
        ("lr", float("nan"), "a number above 0"),
        ("lr", float("inf"), "a number above 0"),
        ("lr", None, "a number above 0"),
        ("epochs", 2.5, "a whole number at least 1"),
        ("epochs", 0, "a whole number at least 1"),
        ("epochs", [3], "a whole number"),
        ("seed", -1, "a whole number at least 0"),
        ("backbone", "", "a text that is not empty"),
        ("backbone", 50, "a text that is not empty"),
        ("folds", 2, "at least 3"),
        ("train.networks", 21, "at most 20"),
        ("stats.val", 0.6, "leave no training rows"),
        ("stats.pos_weight_min", 30, "above stats.pos_weight_max"),
        ("augment.crop_scale", [0.9, 0.5], "first number must not exceed"),
        ("validate.fit", "stretch", "crop, pad, squash"),
        ("train.workers", "many", "auto, or a whole number at least 0"),
        ("train.workers", -1, "auto, or a whole number at least 0"),
        ("train", 3, "expected names and values"),
        ("evaluate.threshold", "f2", "one of f1, precision, recall, fixed"),
        ("evaluate.threshold", 0.5, "one of f1, precision, recall, fixed"),
        ("evaluate.minimum", 0, "a number above 0 and at most 1"),
        ("evaluate.minimum", 1.01, "a number"),
        ("evaluate.minimum", "high", "a number"),
        ("evaluate.fixed_threshold", 0, "a number above 0 and below 1"),
        ("evaluate.fixed_threshold", 1, "a number above 0 and below 1"),
    ],
)
def test_bad_value_is_named_with_what_is_valid(settings_file, key, value, expected):
    changes = {key: value} | ({"stats.test": 0.4} if key == "stats.val" else {})
    message = problem(settings_file(changes))
    assert key.split(".")[0] in message
    assert expected in message


def test_views_that_are_shown_again_can_not_be_mixed(settings_file):
    with pytest.raises(UserError, match=r"train\.views: mixed pictures are new in every epoch"):
        params.load(settings_file({"train.views": 2, "augment.mix": "mixup"}), ("train", "augment"))


def test_folds_times_networks_are_limited(settings_file):
    """200 in all, which a model file may hold."""
    many = settings_file({"folds": 67, "train.networks": 3})
    with pytest.raises(UserError, match=r"folds and train\.networks: 201 networks, more than 200"):
        params.load(many, ("folds", "train"))
    assert params.load(settings_file({"folds": 100, "train.networks": 2}), ("folds", "train")).folds == 100


@pytest.mark.parametrize("goal", ["f1", "precision", "recall", "fixed"])
@pytest.mark.parametrize("minimum", [1e-6, 0.9, 1, "0.5"])
def test_goals_of_a_threshold(settings_file, goal, minimum):
    changes = {"evaluate.threshold": goal, "evaluate.minimum": minimum}
    settings = params.load(settings_file(changes), ("evaluate",))
    assert (settings.evaluate.threshold, settings.evaluate.minimum) == (goal, float(minimum))
    assert isinstance(settings.evaluate.minimum, float)


def test_unknown_key_names_its_neighbour_and_the_valid_ones(settings_file):
    message = problem(settings_file({"train.batchsize": 8}))
    assert "train.batchsize: unknown setting; did you mean 'batch_size'? valid here: resolution, test_resolution" in message


def test_all_problems_are_listed_at_once(settings_file):
    message = problem(settings_file({"freeze": "layer9", "augment.hue": 3, "frezze": "all"}, drop=("lr",)))
    for part in ("freeze: 'layer9'", "augment.hue: 3", "frezze: unknown", "lr: missing"):
        assert part in message


def test_text_from_the_command_line_becomes_a_number(settings_file):
    settings = params.load(settings_file({"lr": "1e-05", "epochs": "7"}), ("lr", "epochs"))
    assert settings.lr == 1e-05
    assert settings.epochs == 7
    assert isinstance(settings.epochs, int)


@pytest.mark.parametrize(("given", "expected"), [("auto", "auto"), (0, 0), ("3", 3)])
def test_a_number_or_a_word(settings_file, given, expected):
    assert params.load(settings_file({"train.workers": given}), ("train",)).train.workers == expected


def test_one_dropout_serves_both_places(settings_file):
    assert params.load(settings_file({"dropout": 0.3}), ("dropout",)).dropout == (0.3, 0.3)


def test_only_named_settings_are_there(settings_file):
    settings = params.load(settings_file(), ("validate.side", "stats"))
    assert settings.validate.side == 256
    for access in (lambda: settings.seed, lambda: settings.validate.fit):
        with pytest.raises(AttributeError, match="READS"):
            access()


def test_settings_are_frozen(settings_file):
    settings = params.load(settings_file(), ("seed", "stats"))
    with pytest.raises(AttributeError):
        settings.seed = 1
    with pytest.raises(AttributeError):
        settings.stats.val = 0.5


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "", "a: \x00", "&a [*a]"])
def test_what_is_no_settings_file(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert str(path) in problem(path)


def test_missing_file(tmp_path):
    assert "is missing" in problem(tmp_path / "params.yaml")
