"""What several tests share: made pictures, settings with changes, stages as a user runs them."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from stages import validate
from stages.lib.errors import run_stage as run_main
from tests.project import SMALL, Project, project

ROOT = Path(__file__).parents[1]


@pytest.fixture
def settings_file(tmp_path: Path) -> Callable[..., Path]:
    """`settings_file({"train.batch_size": 8})` writes params.yaml with changes and returns its path."""

    def write(changes: dict[str, Any] | None = None, drop: tuple[str, ...] = ()) -> Path:
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        for dotted, value in (changes or {}).items():
            section = content
            *parents, name = dotted.split(".")
            for parent in parents:
                section = section[parent]
            section[name] = value
        for name in drop:
            del content[name]
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """`picture(seed, (width, height))` draws a smooth colour picture that is unlike that of any other seed."""

    def draw(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, size=(7, 7, 3), dtype=np.uint8)
        fine = rng.integers(0, 60, size=(16, 16, 3), dtype=np.uint8)
        base = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=int)
        detail = np.asarray(Image.fromarray(fine).resize(size, Image.Resampling.BICUBIC), dtype=int)
        return Image.fromarray(np.clip(base + detail - 30, 0, 255).astype(np.uint8))

    return draw


@pytest.fixture
def run_stage() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_stage("validate", "--images", folder)` runs the stage as a command, from the project's folder."""

    def run(stage: str, *args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"stages.{stage}", *map(str, args)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    return run


def in_process(_: str, *args: object) -> CompletedProcess[str]:
    """Run the stage as `run_stage` does, without a process of its own."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    before, sys.argv = sys.argv, ["validate", *map(str, args)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            run_main(validate.main)
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    return CompletedProcess(args, code, out.getvalue(), err.getvalue())


class Folder:
    """A folder of ten good pictures that a test damages, and the stage run on it."""

    def __init__(self, base: Path, picture: Callable[..., Image.Image], run: Callable, settings: Callable) -> None:
        self.base, self.picture, self._run, self._settings = base, picture, run, settings
        self.images = base / "images"
        self.images.mkdir(parents=True)
        self.rows = []
        for index in range(10):
            picture(index).save(self.images / f"{index}.jpg", quality=92)
            self.rows.append(f"{index}.jpg {index % 2} {int(index > 4)}")

    def run(self, changes: dict[str, object] | None = None, labels: str = "labels.txt", command: bool = False):
        if labels == "labels.txt":
            (self.base / labels).write_text("image a b\n" + "\n".join(self.rows) + "\n")
        changes = {"validate.side": 64, "validate.max_rejected": 0.5} | (changes or {})
        out = self.base / "clean", self.base / "metrics"
        where = ("--images", self.images, "--labels", self.base / labels, "--out", out[0], "--metrics", out[1])
        run = self._run if command else in_process
        return run("validate", *where, "--params", self._settings(changes))

    def rejects(self) -> pd.DataFrame:
        return pd.read_csv(self.base / "clean/rejects.csv", keep_default_na=False, dtype={"value": str})

    def fault(self, kind: str) -> pd.Series:
        found = self.rejects()
        (row,) = [row for _, row in found.iterrows() if row["kind"] == kind]
        return row

    def clean(self) -> pd.DataFrame:
        return pd.read_csv(self.base / "clean/labels.csv", dtype={"image": str})

    def outputs(self) -> dict[str, bytes]:
        places = sorted((self.base / "clean").iterdir()) + sorted((self.base / "metrics").iterdir())
        return {place.name: place.read_bytes() for place in places}


@pytest.fixture
def folder(tmp_path, picture, run_stage, settings_file) -> Folder:
    return Folder(tmp_path / "data", picture, run_stage, settings_file)


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All stages run; tests read it and leave it as it is."""
    made = project(tmp_path_factory.mktemp("done"), SMALL)
    made.run("train")
    made.run("evaluate")
    return made


@pytest.fixture(scope="session")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = project(tmp_path_factory.mktemp("folded"), SMALL | {"folds": 3, "freeze": "layer4", "train.networks": 2})
    made.run("train")
    made.run("evaluate")
    return made


@pytest.fixture
def own(done: Project, tmp_path: Path) -> Project:
    """A copy of `done` to spoil."""
    shutil.copytree(done.folder, tmp_path / "own")
    return Project(tmp_path / "own")
