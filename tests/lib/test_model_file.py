"""model.pth: what goes in comes out bit for bit, and what is no model file, or does not fit, is refused with a reason."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from torch import nn

from stages.lib import backbones, model, model_file
from stages.lib.errors import UserError
from stages.lib.preprocessing import Preprocessing
from tests.lib.test_model import HOW, SIDE, SMALL, copy_of_state, two_steps

torch.set_num_threads(1)


def trained(backbone: str = SMALL, freeze: str = "none", seed: int = 0) -> model.Tagger:
    """A network whose BatchNorm statistics and head are not those of its start."""
    torch.manual_seed(seed)
    how_large = SIDE if backbone.startswith("vit") else HOW.resolution
    network = model.Tagger(backbones.create(backbone, "none", how_large), 2, 8, (0.2, 0.2))
    network.freeze(freeze)
    two_steps(network, how_large)
    return network


def saved_of(networks: list[model.Tagger], backbone: str = SMALL, resolution: int = 32) -> model_file.Saved:
    members = [
        model_file.Member(copy_of_state(network), [1.5, 0.25], epoch, 0.5 + epoch)
        for epoch, network in enumerate(networks, start=1)
    ]
    how = Preprocessing(32, "squash", resolution, 0.875, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    settings = {"freeze": "none", "train": {"hidden": 8}, "dropout": [0.2, 0.2]}
    return model_file.Saved(backbone, ["striped", "long sleeve"], 8, [0.2, 0.2], how, settings, members)


@pytest.mark.parametrize(("backbone", "resolution"), [(SMALL, 32), ("vit_tiny_patch16_224", 64)])
def test_a_saved_model_gives_the_same_logits_bit_for_bit(tmp_path: Path, backbone: str, resolution: int) -> None:
    network = trained(backbone)
    saved = saved_of([network], backbone, resolution)
    model_file.save(tmp_path / "models" / "model.pth", saved)
    loaded = model_file.load(tmp_path / "models" / "model.pth")
    for part in ("backbone", "attributes", "hidden", "dropout", "preprocessing", "settings"):
        assert getattr(loaded, part) == getattr(saved, part)
    assert (loaded.members[0].epoch, loaded.members[0].val_loss) == (1, 1.5)
    np.testing.assert_array_equal(loaded.log_pos_weight(0), np.log([1.5, 0.25]))
    pictures = torch.randn(4, 3, resolution, resolution).to(memory_format=torch.channels_last)
    again = loaded.networks()[0]
    assert not any(module.training for module in again.modules())
    with torch.inference_mode():
        expected = network.eval().to(memory_format=torch.channels_last)(pictures)
        assert torch.equal(again(pictures), expected)


def test_the_file_holds_plain_values_and_tensors_only(tmp_path: Path) -> None:
    model_file.save(tmp_path / "model.pth", saved_of([trained()]))
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    assert content["format"] == model_file.FORMAT
    assert content["attributes"] == ["striped", "long sleeve"]
    assert content["preprocessing"]["resolution"] == 32
    assert os.listdir(tmp_path) == ["model.pth"]


def test_members_share_their_frozen_tensors_on_disk(tmp_path: Path) -> None:
    networks = [trained(freeze="all", seed=0)]
    for seed in (1, 2):  # the same backbone under another head
        network = deepcopy(networks[0])
        torch.manual_seed(seed)
        nn.init.normal_(network.head[1].weight)
        networks.append(network)
    model_file.save(tmp_path / "one.pth", saved_of(networks[:1]))
    model_file.save(tmp_path / "three.pth", saved_of(networks))
    one, three = ((tmp_path / name).stat().st_size for name in ("one.pth", "three.pth"))
    # A head has 512 * 8 numbers of four bytes; names and list take some kilobytes per member.
    assert three < 1.1 * one + 2 * (512 * 8 * 4)
    pictures = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for network, again in zip(networks, model_file.load(tmp_path / "three.pth").networks(), strict=True):
            assert torch.equal(again(pictures), network.eval().to(memory_format=torch.channels_last)(pictures))


def test_equal_models_are_equal_bytes_whatever_the_file_is_called(tmp_path: Path) -> None:
    saved = saved_of([trained()])
    for name in ("one.pth", "other_process.pth"):
        model_file.save(tmp_path / name, saved)
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "other_process.pth").read_bytes()


def test_members_that_differ_are_kept_apart(tmp_path: Path) -> None:
    networks = [trained(seed=seed) for seed in (0, 1)]
    model_file.save(tmp_path / "model.pth", saved_of(networks))
    loaded = model_file.load(tmp_path / "model.pth")
    for network, member in zip(networks, loaded.members, strict=True):
        assert all(torch.equal(member.state[name], tensor) for name, tensor in network.state_dict().items())


def test_a_failed_save_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"earlier")

    def full(content: object, where: BinaryIO) -> None:
        where.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        model_file.save(path, saved_of([trained()]))
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["model.pth"]


def test_a_missing_model_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pth is missing; the train stage writes it: run 'dvc repro train'"):
        model_file.load(tmp_path / "model.pth")


# Each ends otherwise in PyTorch's unpickler: EOFError without a text, UnpicklingError, IndexError, UnicodeDecodeError.
DAMAGED = {
    "empty": b"",
    "text": b"hello\n",
    "html": b"<!DOCTYPE html><html></html>",
    "bytes": bytes(range(256)),
    "stack": b"\x80\x02.",
    "not utf-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"model .*model\.pth is damaged or no model file"):
        model_file.load(tmp_path / "model.pth")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_a_cut_off_model(tmp_path: Path, share: float) -> None:
    model_file.save(tmp_path / "model.pth", saved_of([trained()]))
    whole = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="is damaged or no model file"):
        model_file.load(tmp_path / "model.pth")


def test_a_model_with_damaged_bytes_in_its_list_of_contents(tmp_path: Path) -> None:
    model_file.save(tmp_path / "model.pth", saved_of([trained()]))
    whole = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(whole.replace(b"long sleeve", b"long\xff\xfe\xfdleeve", 1))
    with pytest.raises(UserError, match="is damaged or no model file"):
        model_file.load(tmp_path / "model.pth")


@pytest.mark.parametrize("content", [{}, {"format": "other"}, [1, 2], torch.zeros(2), {"conv1.weight": torch.zeros(2)}, "text"])
def test_a_file_of_another_program(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"model .*model\.pth"):
        model_file.load(tmp_path / "model.pth")


@pytest.mark.parametrize("part", ["backbone", "attributes", "preprocessing", "members"])
def test_a_model_that_lacks_a_part(tmp_path: Path, part: str) -> None:
    model_file.save(tmp_path / "model.pth", saved_of([trained()]))
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    del content[part]
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match=f"lacks a part: '{part}'"):
        model_file.load(tmp_path / "model.pth")


def test_a_member_that_lacks_a_part(tmp_path: Path) -> None:
    model_file.save(tmp_path / "model.pth", saved_of([trained()]))
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    del content["members"][0]["pos_weight"]
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"lacks a part: .*pos_weight"):
        model_file.load(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({}, "no list"),
        ([{}] * 20, "20 and more"),
        ([{"head.9.weight": torch.zeros(2)}], "do not fit the first"),
        ([{"head.4.bias": torch.zeros(3)}], "do not fit the first"),
        ([{"head.4.bias": torch.full((2,), torch.nan)}], "no numbers"),
        ([{"head.4.bias": 1.0}], "no mapping of tensors"),
    ],
    ids=str,
)
def test_other_networks_that_can_not_be(tmp_path: Path, others: Any, expected: str) -> None:
    saved = saved_of([trained()])
    saved.members[0].others = [{}]
    model_file.save(tmp_path / "model.pth", saved)
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    content["members"][0]["others"] = others
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match=expected):
        model_file.load(tmp_path / "model.pth")


def test_weights_of_another_backbone_do_not_fit(tmp_path: Path) -> None:
    saved = saved_of([trained()])
    saved.backbone = "mobilenetv3_small_050"
    model_file.save(tmp_path / "model.pth", saved)
    with pytest.raises(UserError, match="weights do not fit mobilenetv3_small_050"):
        model_file.load(tmp_path / "model.pth").networks()


class Executes:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_model_file_is_not_executed(tmp_path: Path) -> None:
    torch.save({"format": model_file.FORMAT, "members": Executes(tmp_path / "executed")}, tmp_path / "model.pth")
    with pytest.raises(UserError, match="is damaged or no model file"):
        model_file.load(tmp_path / "model.pth")
    assert not (tmp_path / "executed").exists()
