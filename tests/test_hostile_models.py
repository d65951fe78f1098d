"""Model files that nobody would write by mistake: the right archive and pickle, with something else in one place."""

from __future__ import annotations

import io
import random
import resource
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given

from stages.lib import backbones, model_file
from stages.lib.errors import UserError
from tests.bench import fuzz, spoil
from tests.test_hostile import ANYTHING, few


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return fuzz.model_files(tmp_path_factory.mktemp("seed"))[0]


PLACES = ["backbone", "attributes", "hidden", "dropout", "preprocessing", "settings", "members", "preprocessing.side"]
PLACES += ["preprocessing.mean", "preprocessing.fit", "preprocessing.center_crop", "members.0.state", "members.0.pos_weight"]
PLACES += ["members.0.state.head.1.weight", "members.0.epoch", "members.0"]


def put(content: Any, place: str, value: Any) -> None:
    first, _, rest = place.partition(".")
    key: Any = int(first) if first.isdigit() else first
    if isinstance(content, dict) and place in content:
        content[place] = value
    elif rest:
        put(content[key], rest, value)
    else:
        content[key] = value


@few
@given(value=ANYTHING)
@pytest.mark.parametrize("place", PLACES)
def test_a_model_with_anything_in_one_place_is_loaded_or_refused(seed: bytes, tmp_path: Path, place: str, value: Any) -> None:
    (tmp_path / "seed.pth").write_bytes(seed)
    content = torch.load(tmp_path / "seed.pth", weights_only=True)
    put(content, place, value)
    torch.save(content, tmp_path / "model.pth")
    fuzz.load_model((tmp_path / "model.pth").read_bytes(), tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "part"),
    [
        ("hidden", 10**12, "do not fit"),
        ("preprocessing.side", 10**9, "from 1 to 2048"),
        ("preprocessing.resolution", 10**9, "from 1 to 1024"),
        ("preprocessing.std", (0.0, 1.0, 1.0), "above 0"),
        ("attributes", ["red", "\x1b[2J"], "control character"),
        ("attributes", ["red", "=cmd()"], "formula"),
        ("attributes", ["red", "red"], "twice"),
        ("members", [], "it has 0 members"),
        ("members.0.pos_weight", [1.0, float("nan")], "pos_weight"),
        ("members.0.pos_weight", torch.nn.Parameter(torch.ones(2)), "can't be used"),  # found by fuzz.py
        ("members.0.share", torch.ones(2), "can't be used"),
        ("dropout", [torch.ones(2), 0.1], "can't be used"),
        ("dropout", [10**400, 0.1], "can't be used"),
        ("backbone", "hf-hub:somebody/something", "timm has no model"),
        ("members.0.state.head.1.weight", torch.full((4, 64), float("nan")), "no numbers"),
    ],
)
def test_a_model_that_would_do_harm_is_refused(seed: bytes, tmp_path: Path, place: str, value: Any, part: str) -> None:
    (tmp_path / "seed.pth").write_bytes(seed)
    content = torch.load(tmp_path / "seed.pth", weights_only=True)
    put(content, place, value)
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match=part):
        model_file.load(tmp_path / "model.pth").networks()


def claims_a_terabyte(_: torch.Tensor) -> torch.Tensor:
    return torch.zeros(()).expand(10**6, 10**6)  # one number in the file


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("make", "part"),
    [
        (claims_a_terabyte, r"'head\.1\.weight'.* claims the shape \(1000000, 1000000\)"),
        (lambda _: torch.zeros(2, 3).to_sparse(), r"'head\.1\.weight'.* is no plain array"),  # found by fuzz.py, as the next two
        (lambda _: torch.zeros(10**6, 10**6, device="meta"), r"'head\.1\.weight'.* is no plain array"),
        (lambda tensor: tensor.to(torch.complex64), r"'head\.1\.weight'.* holds complex numbers"),
    ],
)
def test_a_model_whose_tensor_is_no_array_of_real_numbers_is_refused(seed: bytes, tmp_path: Path, make: Any, part: str) -> None:
    (tmp_path / "seed.pth").write_bytes(seed)
    content = torch.load(tmp_path / "seed.pth", weights_only=True)
    state = content["members"][0]["state"]
    state["head.1.weight"] = make(state["head.1.weight"])
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match=part):
        model_file.load(tmp_path / "model.pth")
    # The same in a file that the setting `weights` names.
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=part):
        backbones.create("test_vit", str(tmp_path / "weights.pth"), 32)


def test_a_model_file_that_unpacks_to_more_than_it_holds_is_refused(seed: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(seed)) as sound, zipfile.ZipFile(tmp_path / "model.pth", "w") as packed:
        for name in sound.namelist():
            packed.writestr(name, sound.read(name), zipfile.ZIP_DEFLATED)
    assert torch.load(tmp_path / "model.pth", weights_only=True)  # PyTorch takes it
    with pytest.raises(UserError, match="its archive is packed"):
        model_file.load(tmp_path / "model.pth")


def test_a_huge_network_is_not_built_for_weights_that_do_not_fit(seed: bytes, tmp_path: Path) -> None:
    """A billion parameters, 4 GB of them, by name alone."""
    (tmp_path / "seed.pth").write_bytes(seed)
    saved = model_file.load(tmp_path / "seed.pth")
    saved.backbone = "eva_giant_patch14_560"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"do not fit eva_giant_patch14_560: .* and \d+ more"):
        saved.networks()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_a_hundred_thousand_members_or_attributes_are_refused_at_once(seed: bytes, tmp_path: Path) -> None:
    for place, value, part in (("members", [{}] * 10**5, "lacks a part"), ("attributes", [f"a{n}" for n in range(10**5)], "fit")):
        (tmp_path / "seed.pth").write_bytes(seed)
        content = torch.load(tmp_path / "seed.pth", weights_only=True)
        content[place] = value
        torch.save(content, tmp_path / "model.pth")
        with pytest.raises(UserError, match=part):
            model_file.load(tmp_path / "model.pth")
    content["attributes"], content["members"] = ["red", "framed"], content["members"] * 101
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match="it has 101 members"):
        model_file.load(tmp_path / "model.pth")
    content["members"] = [content["members"][0] | {"others": [{}] * 4}] * 50  # of no size in the file, and 250 in memory
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match="it has 250 networks, more than 200"):
        model_file.load(tmp_path / "model.pth")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_models_spoilt_in_their_content_pickle_or_archive_are_loaded_or_refused(seed: bytes, tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(60):
        fuzz.load_model(spoil.spoilt_model(seed, [seed], chance), tmp_path)
