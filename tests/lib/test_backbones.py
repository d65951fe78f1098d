"""Stages of timm models as `freeze` names them, and where weights come from."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from stages.lib import backbones, downloads, images, params
from stages.lib.errors import UserError

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)

SAMPLES = Path(__file__).parents[2] / "data" / "sample" / "unlabelled"

# The first module of layer1 to layer4, from the papers' tables: the stages at strides 4, 8, 16 and 32.
FIRST_MODULES = {
    "resnet50": ("layer1.0", "layer2.0", "layer3.0", "layer4.0"),
    "efficientnet_b0": ("blocks.1", "blocks.2", "blocks.3", "blocks.5"),
    "tf_efficientnet_lite0": ("blocks.1", "blocks.2", "blocks.3", "blocks.5"),
    "convnext_tiny": ("stages.0", "stages.1", "stages.2", "stages.3"),
    "vit_tiny_patch16_224": ("blocks.0", "blocks.3", "blocks.6", "blocks.9"),  # quarters of 12 blocks
    "swin_tiny_patch4_window7_224": ("layers.0", "layers.1", "layers.2", "layers.3"),
    "mobilenetv3_large_100": ("blocks.1", "blocks.2", "blocks.3", "blocks.5"),
}


class Executes:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@cache
def random_backbone(name: str) -> torch.nn.Module:
    return backbones.create(name, "none", 64)


@pytest.fixture(scope="module")
def lite() -> dict[str, torch.Tensor]:
    return random_backbone("tf_efficientnet_lite0").state_dict()


@pytest.mark.parametrize("name", FIRST_MODULES)
def test_levels_start_at_the_stages(name: str) -> None:
    backbone = random_backbone(name)
    levels = backbones.levels(backbone)
    parameters = [parameter for parameter, _ in backbone.named_parameters()]
    for level, module in enumerate(FIRST_MODULES[name], start=1):
        own = [p for p in parameters if p.startswith(f"{module}.")]
        assert own, f"{name} has no parameter in {module}"
        first = next(p for p in parameters if backbones.level_of(p, levels) == level)
        assert first == own[0]
        assert {backbones.level_of(p, levels) for p in own} == {level}


@pytest.mark.parametrize("name", FIRST_MODULES)
def test_every_parameter_has_a_level_and_the_order_is_that_of_the_network(name: str) -> None:
    backbone = random_backbone(name)
    levels = backbones.levels(backbone)
    found = [backbones.level_of(parameter, levels) for parameter, _ in backbone.named_parameters()]
    assert set(found) == {0, 1, 2, 3, 4}
    assert found == sorted(found)
    assert list(levels.values()) == sorted(levels.values())
    # Every parameter lies in a unit, but for those of the backbone itself (class token, positions).
    outside = [
        parameter
        for parameter, _ in backbone.named_parameters()
        if not any(parameter.startswith(f"{unit}.") for unit in levels) and parameter not in levels
    ]
    assert outside == (["cls_token", "pos_embed"] if name.startswith("vit") else [])


def test_what_follows_the_last_stage_belongs_to_it() -> None:
    levels = backbones.levels(random_backbone("tf_efficientnet_lite0"))
    assert backbones.level_of("conv_head.weight", levels) == 4
    assert backbones.level_of("bn2.weight", levels) == 4
    levels = backbones.levels(random_backbone("vit_tiny_patch16_224"))
    assert backbones.level_of("norm.weight", levels) == 4


def test_a_backbone_without_stages_has_no_levels() -> None:
    assert backbones.levels(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1))) is None


@pytest.mark.parametrize(("name", "near"), [("resnet5", "resnet50"), ("eficientnet_b0", "efficientnet_b0")])
@pytest.mark.parametrize("weights", ["none", "pretrained"])
def test_an_unknown_backbone_is_named_with_near_matches(name: str, near: str, weights: str) -> None:
    with pytest.raises(UserError) as caught:
        backbones.create(name, weights, 64)
    message = str(caught.value)
    assert f"'{name}'" in message
    assert near in message.split("near matches: ")[1].split(".")[0].split(", ")


def test_an_unknown_backbone_without_near_matches() -> None:
    with pytest.raises(UserError, match="timm has no model '1234567890'"):
        backbones.create("1234567890", "none", 64)


def test_a_resolution_that_the_backbone_can_not_have() -> None:
    with pytest.raises(UserError, match=r"xcit_nano_12_p16_224 can't be built for train\.test_resolution 40"):
        backbones.create("xcit_nano_12_p16_224", "none", 40)


def test_embedded_weights_fill_every_tensor(lite: dict[str, torch.Tensor]) -> None:
    loaded = backbones.create("tf_efficientnet_lite0", "pretrained", 64).state_dict()
    assert list(loaded) == list(lite)
    for name, random in lite.items():
        assert loaded[name].shape == random.shape
        # How many batches a BatchNorm has seen is 0 in both, and unused.
        assert name.endswith("num_batches_tracked") or not torch.equal(loaded[name], random), name


def test_embedded_weights_see_things() -> None:
    """With the package's own classifier the pictures of garments get classes with confidence (chance: 0.001)."""
    backbone = backbones.create("tf_efficientnet_lite0", "pretrained", 224).eval()
    package = Path(__import__(backbones.EMBEDDED_PACKAGE).__file__).parent
    file = torch.load(next(package.glob("models/*.pth")), weights_only=True)
    frame = images.Frame(224, "squash", 100, 20)
    pixels = np.stack([images.open_square(path, frame).pixels for path in sorted(SAMPLES.iterdir())[:4]])
    mean, std = (np.array(values) for values in backbones.mean_and_std(backbone))
    batch = torch.from_numpy((pixels / 255 - mean) / std).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        classes = (backbone(batch) @ file["_fc.weight"].T + file["_fc.bias"]).softmax(1)
    assert classes.max(1).values.mean() > 0.05  # measured: 0.15


def test_random_weights_depend_on_the_seed_alone() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(backbones.create("mobilenetv3_small_050", "none", 64).state_dict()["conv_stem.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_torchvision_state_dict_fits_and_gives_the_same_features(tmp_path: Path) -> None:
    torch.manual_seed(3)
    original = torchvision.models.resnet50(weights=None).train()
    with torch.no_grad():
        original(torch.randn(4, 3, 64, 64))  # moves the BatchNorm statistics away from 0 and 1
    torch.save(original.state_dict(), tmp_path / "resnet50-test.pth")
    features = []
    original.avgpool.register_forward_hook(lambda module, inputs, output: features.append(output.flatten(1)))
    backbone = backbones.create("resnet50", str(tmp_path / "resnet50-test.pth"), 64).eval()
    pictures = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        original.eval()(pictures)
        torch.testing.assert_close(backbone(pictures), features[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "module.", "safetensors"])
def test_weights_of_a_file(tmp_path: Path, wrap: str) -> None:
    torch.manual_seed(5)
    given = backbones.create("mobilenetv3_small_050", "none", 64).state_dict()
    path = tmp_path / ("weights.safetensors" if wrap == "safetensors" else "weights.pth")
    if wrap == "safetensors":
        save_file(given, path)
    elif wrap == "module.":
        torch.save({f"module.{name}": tensor for name, tensor in given.items()}, path)
    else:
        torch.save({"state_dict": given, "epoch": 3} if wrap == "state_dict" else given, path)
    torch.manual_seed(6)
    loaded = backbones.create("mobilenetv3_small_050", str(path), 64).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in given.items())


def test_a_missing_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth' is not a file; expected pretrained, none, or"):
        backbones.create("mobilenetv3_small_050", str(tmp_path / "nowhere.pth"), 64)


def test_a_misspelt_word_for_weights() -> None:
    with pytest.raises(UserError, match="'pretraned' is not a file; expected pretrained, none, or"):
        backbones.create("mobilenetv3_small_050", "pretraned", 64)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello\n", b"<!DOCTYPE html><html></html>", b"\x80\x02.", bytes(range(256))])
def test_a_file_that_is_no_state_dict(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="can't be read as a state dict"):
        backbones.create("mobilenetv3_small_050", str(path), 64)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3), {"state_dict": 7}, {1: torch.zeros(3)}])
def test_a_file_with_something_else_in_it(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        backbones.create("mobilenetv3_small_050", str(tmp_path / "weights.pth"), 64)


def test_a_cut_off_file(tmp_path: Path, lite: dict[str, torch.Tensor]) -> None:
    torch.save(lite, tmp_path / "weights.pth")
    whole = (tmp_path / "weights.pth").read_bytes()
    (tmp_path / "weights.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="can't be read as a state dict"):
        backbones.create("tf_efficientnet_lite0", str(tmp_path / "weights.pth"), 64)


def test_a_state_dict_of_another_model_names_the_tensors(tmp_path: Path, lite: dict[str, torch.Tensor]) -> None:
    torch.save(lite, tmp_path / "weights.pth")
    with pytest.raises(UserError) as caught:
        backbones.create("resnet18", str(tmp_path / "weights.pth"), 64)
    message = str(caught.value)
    assert f"{tmp_path / 'weights.pth'} does not fit ResNet" in message
    assert "no conv1.weight" in message
    assert " more" in message


def test_a_state_dict_with_one_tensor_missing_and_one_of_another_shape(tmp_path: Path, lite: dict[str, torch.Tensor]) -> None:
    changed = {name: tensor for name, tensor in lite.items() if name != "bn1.bias"}
    changed["conv_stem.weight"] = torch.zeros(32, 1, 3, 3)
    torch.save(changed, tmp_path / "weights.pth")
    with pytest.raises(UserError) as caught:
        backbones.create("tf_efficientnet_lite0", str(tmp_path / "weights.pth"), 64)
    assert "no bn1.bias" in str(caught.value)
    assert "conv_stem.weight is (32, 1, 3, 3), expected (32, 3, 3, 3)" in str(caught.value)


def test_a_pickle_with_code_in_it_is_refused_and_not_executed(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Executes(tmp_path / "executed")}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="can't be read as a state dict"):
        backbones.create("resnet18", str(tmp_path / "weights.pth"), 64)
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "weights.pth", weights_only=False)  # the trap does work
    assert (tmp_path / "executed").exists()


def test_resnet50_means_the_weights_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, _: str) -> None:
        raise UserError(name)

    monkeypatch.setattr(downloads, "weights_of", refuse)
    with pytest.raises(UserError, match=r"^resnet50\.tv_in1k$"):  # and no silent second try with random weights
        backbones.create("resnet50", "pretrained", 64)


@pytest.mark.parametrize("weights", ["none", "pretrained"])
def test_unknown_weights_of_a_known_backbone_name_the_valid_ones(weights: str) -> None:
    with pytest.raises(UserError, match=r"no weights 'resnet50\.foo'; valid: .*resnet50\.tv_in1k"):
        backbones.create("resnet50.foo", weights, 64)


def test_mean_and_std_are_those_of_the_weights() -> None:
    assert backbones.mean_and_std(backbones.bare("tf_efficientnet_lite0", 64)) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert backbones.mean_and_std(backbones.bare("resnet18", 64)) == imagenet


@pytest.mark.parametrize(("name", "resolution"), [("inception_v3", 64), ("coatnet_0_rw_224", 40)])
def test_resolution_that_does_not_suit_the_backbone(name, resolution):
    with pytest.raises(UserError, match=rf"{name} can't see pictures of {resolution} pixels"):
        backbones.create(name, "none", resolution)


@pytest.mark.parametrize("weights", ["none", "pretrained"])
def test_a_network_of_fixed_size_says_so_before_its_weights_are_fetched(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_downloaded", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(UserError) as caught:
        backbones.create("pit_ti_224", weights, 96, 128)
    message = str(caught.value)
    assert "backbone: pit_ti_224 can't see pictures of 128 pixels" in message
    assert "set train.resolution and train.test_resolution to one size that it takes; its weights were trained at 224" in message


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto", "test_vit"])
def test_transformers_see_both_sizes_of_the_settings_as_they_are(name: str) -> None:
    train = params.load(Path(__file__).parents[2] / "params.yaml", ("train.resolution", "train.test_resolution")).train
    assert train.resolution != train.test_resolution
    backbone = backbones.create(name, "none", train.test_resolution, train.resolution).eval()
    with torch.inference_mode():
        shapes = {backbone(torch.zeros(1, 3, side, side)).shape for side in (train.test_resolution, train.resolution)}
    assert len(shapes) == 1


@pytest.mark.parametrize("name", ["coat_tiny", "levit_128s"])
def test_a_family_without_four_stages_that_hold_parameters_has_no_levels(name: str) -> None:
    """CoaT tells of stages whose blocks lie elsewhere in it: the default `freeze` would train a thousand numbers."""
    assert backbones.levels(backbones.bare(name, 224)) is None
