"""What a DVC user types around the pipeline: the graph, a queued grid, overlaid plots, taking a winner over, a remote.

test_pipeline has `dvc repro`, `dvc exp run -S freeze=layer4`, the diffs, `dvc metrics show` and `dvc plots show`.
"""

from __future__ import annotations

import csv
import io
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.test_pipeline import SMALL, Clone, first_run

ROOT = Path(__file__).parents[1]
STAGES = {"validate", "stats", "train", "evaluate", "predict"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """As test_pipeline's, with one epoch: what is learned does not matter here."""
    return first_run(tmp_path_factory.mktemp("clone"), SMALL | {"epochs": 1})


@pytest.fixture(scope="module")
def grid(clone: Clone) -> list[str]:
    """Names of two experiments that went through the queue; only predict runs in them."""
    assert clone.dvc("exp", "run", "--queue", "-S", "predict.workers=1,2").count("Queued experiment") == 2
    clone.dvc("exp", "run", "--run-all", "-j", "1")
    return clone.dvc("exp", "list", "--name-only").split()


def test_the_graph_has_the_five_stages_and_nothing_else(clone: Clone) -> None:
    drawn = clone.dvc("dag", "--dot")
    assert set(re.findall(r'"([^"]+)"', drawn)) == STAGES


def test_every_stage_says_what_it_does_in_one_line(clone: Clone) -> None:
    listed = clone.dvc("stage", "list").strip().splitlines()
    assert {line.split()[0] for line in listed} == STAGES
    assert all("Outputs" not in line for line in listed)  # what DVC writes where a description is missing
    assert all("…" not in line for line in listed)  # a longer one is cut


def test_a_queued_grid_leaves_two_experiments_and_the_workspace_as_it_was(clone: Clone, grid: list[str]) -> None:
    assert len(grid) == 2
    assert clone.dvc("status").strip().endswith("Data and pipelines are up to date.")
    assert clone._git(clone.folder, "status", "--porcelain") == ""


def test_the_table_of_the_readme_is_narrow(clone: Clone, grid: list[str]) -> None:
    """The flags that the README gives leave settings and scores, and none of the files that stages depend on."""
    (options, drop) = re.findall(r"^ +dvc exp show (--only-changed) --drop '(.*?)'", readme(), re.MULTILINE)[0]
    every, changed = (
        next(csv.reader(io.StringIO(clone.dvc("exp", "show", *flags, "--drop", drop, "--csv")))) for flags in ([], [options])
    )
    assert {"val_ap", "ap", "learned", "freeze", "predict.workers"} <= set(every)
    assert not [column for column in every if "/" in column or column.endswith((".py", "Created"))]
    assert set(changed) <= set(every)
    assert "predict.workers" in changed
    assert not {"freeze", "ap_constant", "roc_auc"} & set(changed)


def readme() -> str:
    return (ROOT / "README.md").read_text() + "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))


def test_plots_of_experiments_are_laid_over_each_other(clone: Clone, grid: list[str]) -> None:
    clone.dvc("plots", "diff", "HEAD", *grid, "-o", "page")
    page = (clone.folder / "page" / "index.html").read_text()
    titles = [next(iter(plot)) for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] if isinstance(plot, dict)]
    assert len(titles) >= 9
    for title in titles:
        assert page.count(f'"text": "{title}"') == 1, title
    assert all(f'"rev": "{name}"' in page for name in ("HEAD", *grid))


def test_the_winner_is_taken_over(clone: Clone, grid: list[str]) -> None:
    clone.dvc("exp", "apply", grid[0])
    assert yaml.safe_load((clone.folder / "params.yaml").read_text())["predict"]["workers"] in (1, 2)
    assert clone.dvc("status").strip().endswith("Data and pipelines are up to date.")
    clone._git(clone.folder, "checkout", "-q", ".")
    clone.dvc("checkout")
    clone.dvc("exp", "branch", grid[1], "the-other")
    assert "the-other" in clone._git(clone.folder, "branch")


def test_a_plain_folder_is_a_remote(clone: Clone, grid: list[str], tmp_path: Path) -> None:
    """Push here, pull in another clone: the same bytes, nothing to run, and the model by its name."""
    clone.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    clone.commit("remote")
    clone._git(clone.folder, "-c", "user.name=t", "-c", "user.email=t@localhost", "tag", "-a", "tagger@v1.0.0", "-m", "first")
    clone.dvc("push")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "origin")], check=True)
    clone._git(clone.folder, "remote", "add", "origin", str(tmp_path / "origin"))
    clone._git(clone.folder, "push", "-q", "origin", "HEAD:refs/heads/main", "--tags")
    clone.dvc("exp", "push", "origin", grid[0])

    other = Clone.__new__(Clone)
    other.folder = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", "-b", "main", str(tmp_path / "origin"), str(other.folder)], check=True)
    other.dvc("pull")
    for name in ("models/model.pth", "models/decision.json", "data/predictions.csv"):
        assert (other.folder / name).read_bytes() == (clone.folder / name).read_bytes()
    assert other.dvc("status").strip().endswith("Data and pipelines are up to date.")
    other.dvc("exp", "pull", "origin", grid[0])
    assert other.dvc("exp", "list", "--name-only", "--all-commits").split() == [grid[0]]
    other.dvc("artifacts", "get", str(tmp_path / "origin"), "tagger", "-o", "got.pth")
    assert (other.folder / "got.pth").read_bytes() == (clone.folder / "models/model.pth").read_bytes()
