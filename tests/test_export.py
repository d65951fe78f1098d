"""export and the ONNX file at work: the same answers as PyTorch, without PyTorch, and never a file that was not checked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import yaml

from stages import export
from stages.lib import decisions, files, portable
from tests.project import ROOT, Project, one_message

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def exported(project: Project, expect: int = 0, *more: object):
    where = ("--out", project / "model.onnx", "--images", project / "images")
    return project.run("export", *where, *more, expect=expect)


@pytest.fixture(scope="module")
def ready(done: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    copy = Project(tmp_path_factory.mktemp("ready") / "own")
    shutil.copytree(done.folder, copy.folder)
    assert "largest difference of a probability" in exported(copy).out
    return copy


def tables_of(project: Project, out: Path, *more: object) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities by model.pth and by model.onnx."""
    found = []
    for name in ("model.pth", "model.onnx"):
        project.run("predict", "--images", project / "images", "--model", project / name, "--out", out, *more)
        found.append(files.read_table(out, "predict")[["red_probability", "framed_probability"]].to_numpy())
    return found[0], found[1]


def test_onnx_answers_like_pytorch_in_batches_of_any_size(ready: Project, tmp_path: Path) -> None:
    by_torch, by_onnx = tables_of(ready, tmp_path / "out.csv")
    np.testing.assert_allclose(by_torch, by_onnx, atol=1e-4)
    assert by_torch.std() > 0.001
    settings = yaml.safe_load((ready / "params.yaml").read_text())
    settings["predict"] |= {"batch_size": 5, "tta": True}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    flipped = tables_of(ready, tmp_path / "out.csv", "--params", tmp_path / "params.yaml")
    np.testing.assert_allclose(*flipped, atol=1e-4)
    assert np.abs(flipped[0] - by_torch).max() > 1e-4


def test_members_of_several_folds_become_one_graph(folded: Project, tmp_path: Path) -> None:
    copy = Project(tmp_path / "own")
    shutil.copytree(folded.folder, copy.folder)
    assert "networks: 6," in exported(copy).out
    np.testing.assert_allclose(*tables_of(copy, tmp_path / "out.csv"), atol=1e-4)


def test_prediction_with_onnx_does_not_import_torch(ready: Project, tmp_path: Path) -> None:
    program = (
        "import sys; from stages import predict; from stages.lib import errors; errors.run_stage(predict.main)\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules), 'torch was imported'"
    )
    where = ("--images", ready / "images", "--out", tmp_path / "out.csv", "--params", ready / "params.yaml")
    command = [sys.executable, "-c", program, "--model", ready / "model.onnx", *where]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(files.read_table(tmp_path / "out.csv", "predict")) == 24


def test_the_metadata_holds_what_other_programs_need(ready: Project) -> None:
    content = {entry.key: entry.value for entry in onnx.load(str(ready / "model.onnx")).metadata_props}
    decision = json.loads((ready / "decision.json").read_text())["attributes"]
    assert json.loads(content["attributes"]) == ["red", "framed"]
    assert json.loads(content["preprocessing"])["resolution"] == 32
    for name, numbers in json.loads(content["decision"])["attributes"].items():
        assert numbers["threshold"] == decision[name]["threshold"]
        assert numbers["temperature"] == decision[name]["temperature"]
    assert content["source"] == files.fingerprint(ready / "model.pth")
    (given,) = onnx.load(str(ready / "model.onnx")).graph.input
    assert given.type.tensor_type.shape.dim[0].dim_param


def test_a_file_that_answers_otherwise_is_not_kept(ready: Project, tmp_path: Path) -> None:
    before = (ready / "model.onnx").read_bytes()
    with mock.patch.object(export, "largest_difference", return_value=2e-4):
        assert "differ by 2.0e-04" in one_message(exported(ready, 1))
    with mock.patch.object(export, "largest_difference", return_value=float("nan")):
        exported(ready, 1)
    assert (ready / "model.onnx").read_bytes() == before


def test_the_check_sees_a_wrong_graph(ready: Project) -> None:
    """A graph that forgets the shift by pos_weight, as an export with a slip would write it."""
    correct = export.Members.forward
    with mock.patch.object(export.Members, "forward", lambda self, images: correct(self, images) + 0.01):
        assert "ONNX Runtime and PyTorch differ" in one_message(exported(ready, 1))


def test_export_refuses_what_it_can_not_do(ready: Project, tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html></html>")
    assert "no readable image" in one_message(exported(ready, 1, "--images", tmp_path))
    assert "must be .onnx" in one_message(exported(ready, 1, "--out", tmp_path / "model.bin"))
    with mock.patch.dict("sys.modules", {"onnxscript": None}):
        assert "pip install onnxscript" in one_message(exported(ready, 1))


def test_a_model_that_is_no_onnx_of_this_project(ready: Project, tmp_path: Path) -> None:
    where = ("--image", ready / "images" / "1.png", "--model", tmp_path / "m.onnx")
    assert "is missing" in one_message(ready.run("predict", *where, expect=1))
    (tmp_path / "m.onnx").write_bytes(b"\0\1\2")
    assert "damaged or no ONNX model" in one_message(ready.run("predict", *where, expect=1))
    content = onnx.load(str(ready / "model.onnx"))
    del content.metadata_props[:]
    onnx.save(content, str(tmp_path / "m.onnx"))
    assert "not written by this project" in one_message(ready.run("predict", *where, expect=1))
    onnx.helper.set_model_props(content, {"format": portable.FORMAT, "attributes": "[]"})
    onnx.save(content, str(tmp_path / "m.onnx"))
    assert "lacks a part of its metadata" in one_message(ready.run("predict", *where, expect=1))
    where = ("--image", ready / "images" / "1.png", "--model", ready / "model.onnx")
    message = one_message(ready.run("predict", *where, "--explain", tmp_path / "why.png", expect=1))
    assert "needs gradients" in message
    with mock.patch.dict("sys.modules", {"onnxruntime": None}):
        assert "pip install onnxruntime" in one_message(ready.run("predict", *where, expect=1))


def test_the_mean_of_members_is_that_of_their_corrected_logits() -> None:
    torch.manual_seed(0)
    networks = [torch.nn.Linear(3, 2) for _ in range(3)]
    shifts = np.random.default_rng(0).normal(size=(3, 2))
    given = torch.randn(5, 3)
    found = export.Members(networks, shifts)(given).detach().numpy()
    each = [decisions.corrected(network(given).detach().numpy(), shift) for network, shift in zip(networks, shifts, strict=True)]
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)
