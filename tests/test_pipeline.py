"""The five stages through DVC, in a fresh repository with a handful of images, as a user would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parents[1]
SMALL = {"backbone": "test_resnet", "weights": "none", "epochs": 2, "freeze": "layer3"}


class Clone:
    """A repository of its own: the working tree's files without the sample, and DVC on the same interpreter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = self._git(ROOT, "ls-files", "-co", "--exclude-standard").splitlines()
        for name in listed:
            if not name.startswith(("data/", "metrics/", "dvc.lock")) and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        (folder / "metrics").mkdir(exist_ok=True)
        (folder / "models").mkdir(exist_ok=True)

    def _git(self, where: Path, *args: str) -> str:
        return subprocess.run(["git", *args], cwd=where, check=True, capture_output=True, text=True).stdout

    def commit(self, message: str) -> None:
        if not (self.folder / ".git").exists():
            self._git(self.folder, "init", "-q")
        self._git(self.folder, "add", "-A")
        self._git(self.folder, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", message)

    def dvc(self, *args: str, fails: bool = False) -> str:
        return self.python("-m", "dvc", *args, fails=fails)

    def python(self, *args: str, fails: bool = False) -> str:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "GIT_AUTHOR_NAME": "t",
            "GIT_AUTHOR_EMAIL": "t@localhost",
            "GIT_COMMITTER_NAME": "t",
            "GIT_COMMITTER_EMAIL": "t@localhost",
        }
        command = [sys.executable, *args]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output
        return output


def make_images(folder: Path, rng: np.random.Generator) -> None:
    """36 labelled pictures, bright or dark; one damaged file; four to predict, one of them no image."""
    (folder / "images").mkdir(parents=True)
    (folder / "new").mkdir()
    rows = ["image bright wide"]
    for index in range(40):
        bright = index % 2
        noise = rng.normal(60 + 120 * bright, 40, size=(40, 64 if index % 3 else 40, 3)).clip(0, 255).astype(np.uint8)
        place = folder / ("images" if index < 36 else "new") / f"{index}.png"
        Image.fromarray(noise).save(place)
        if index < 36:
            rows.append(f"{index}.png {bright if index % 7 else 'NA'} {int(index % 3 > 0)}")
    (folder / "images" / "cut.png").write_bytes((folder / "images" / "0.png").read_bytes()[:400])
    (folder / "new" / "page.png").write_text("<html>404</html>")
    (folder / "labels.txt").write_text("\n".join([*rows, "cut.png 1 1"]) + "\n")


def first_run(folder: Path, small: dict[str, Any]) -> Clone:
    """A clone with pictures of its own and the settings `small`, after `dvc repro` and a commit."""
    made = Clone(folder)
    make_images(made.folder / "data" / "mine", np.random.default_rng(0))
    path = made.folder / "params.yaml"
    settings = yaml.safe_load(path.read_text())
    settings |= small | {"data": {"images": "data/mine/images", "labels": "data/mine/labels.txt"}}
    settings["predict"]["images"] = "data/mine/new"
    settings["validate"]["side"] = 48
    settings["train"] |= {"resolution": 32, "test_resolution": 32, "batch_size": 8, "hidden": 16, "head_start": "random"}
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    made.commit("start")
    made.dvc("repro")
    made.commit("first run")
    return made


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return first_run(tmp_path_factory.mktemp("clone"), SMALL)


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def test_first_run_writes_every_output(clone: Clone):
    assert clone.dvc("status").strip().endswith("Data and pipelines are up to date.")
    scores = json.loads((clone.folder / "metrics/scores.json").read_text())
    assert {"ap", "ap_constant", "ap_features", "learned"} <= set(scores)
    evaluation = json.loads((clone.folder / "metrics/evaluation.json").read_text())
    assert {"ap", "known", "verdict"} <= set(evaluation["attributes"]["bright"])
    card = (clone.folder / "models/MODEL_CARD.md").read_text()
    assert "data/mine/labels.txt" in card
    assert "| bright |" in card
    assert "nan" not in card.lower()
    predictions = (clone.folder / "data/predictions.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in predictions] == ["image", "36.png", "37.png", "38.png", "39.png", "page.png"]
    assert "page.png,not an image: it is an HTML page" in (clone.folder / "data/unreadable.csv").read_text()
    assert json.loads((clone.folder / "metrics/validation.json").read_text())["faults"] == {"damaged_image": 1}


def test_second_run_does_nothing(clone: Clone):
    assert ran(clone.dvc("repro")) == []


def test_git_sees_only_what_should_be_committed(clone: Clone):
    tracked = clone._git(clone.folder, "ls-files", "data/clean", "models", "metrics").split()
    names = ("evaluation", "scores", "stats", "train", "validation")
    assert tracked == [*(f"metrics/{name}.json" for name in names), "models/MODEL_CARD.md"]


def test_freeze_reruns_train_and_what_follows(clone: Clone):
    output = clone.dvc("exp", "run", "-n", "deeper", "-S", "freeze=layer4")
    assert ran(output) == ["train", "evaluate", "predict"]
    assert re.search(r"freeze\s+layer3\s+layer4", clone.dvc("params", "diff"))
    changed = json.loads(clone.dvc("metrics", "diff", "--json"))["metrics/train.json"]["val_loss"]
    assert changed["old"] != changed["new"]
    assert re.search(r"freeze\s+layer3\s+layer4", clone.dvc("exp", "diff", "HEAD", "deeper"))
    shown = clone.dvc("exp", "show", "--csv")
    assert "deeper" in shown
    assert "layer4" in shown


def test_two_experiments_are_compared_on_the_same_rows(clone: Clone):
    """After the experiment above: a commit, an experiment by its name, and the workspace."""
    for second in (["deeper"], []):
        shown = clone.python("-m", "stages.compare", "HEAD", *second)
        assert re.search(r"bright +\d\.\d{3} -> \d\.\d{3}", shown)


def test_an_experiment_beside_the_workspace_leaves_it_alone(clone: Clone):
    before = (clone.folder / "params.yaml").read_bytes()
    assert ran(clone.dvc("exp", "run", "--temp", "-n", "mirrored", "-S", "predict.tta=true")) == ["predict"]
    assert (clone.folder / "params.yaml").read_bytes() == before


def test_readable_answers(clone: Clone):
    shown = clone.dvc("metrics", "show")
    assert all(name in shown for name in ("scores.json", "train.json"))
    assert all(stage in clone.dvc("dag") for stage in ("validate", "stats", "train", "evaluate", "predict"))
    clone.dvc("plots", "show", "-o", "page")
    page = (clone.folder / "page" / "index.html").read_text()
    needed = re.findall(r'src="https://cdn.jsdelivr.net/npm/([a-z-]+)@([0-9.]+)"', page)
    assert needed
    for name, version in needed:  # what README fetches, and the page without network takes from there
        assert f"{name}@{version}" in (ROOT / "README.md").read_text()
        assert f'src="../.dvc/vega/{name}.js"' in (ROOT / ".dvc/offline.html").read_text()
    assert all(
        title in page
        for title in ("Loss per epoch", "Precision and recall", "ROC", "Confusion", "Reliability", "Scores by threshold")
    )
    shutil.rmtree(clone.folder / "page")


def test_bad_setting_stops_with_one_message_and_destroys_nothing(clone: Clone):
    clone._git(clone.folder, "checkout", "-q", ".")
    clone.dvc("checkout", "--force")
    watched = ["models/model.pth", "models/decision.json", "metrics/evaluation.json", "metrics/loss_curve.png"]
    before = {name: (clone.folder / name).read_bytes() for name in watched}
    for override, hint in (("freeze=layer9", "layer1, layer2"), ("backbone=resnet5", "resnet50")):
        output = clone.dvc("exp", "run", "-S", override, fails=True)
        assert hint in output
        assert "Traceback" not in output
        assert {name: (clone.folder / name).read_bytes() for name in watched} == before
        clone._git(clone.folder, "checkout", "-q", "params.yaml")
