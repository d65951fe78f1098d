"""A small project for tests: two dozen made pictures, and the real stages run on them, shrunk."""

from __future__ import annotations

import contextlib
import importlib
import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image

from stages import evaluate
from stages.lib import errors, files
from stages.lib.held_out import Inputs

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
SMALL = {
    "backbone": "test_resnet",
    "weights": "none",
    "freeze": "layer2",
    "epochs": 2,
    "lr": 0.01,
    "validate.side": 64,
    "stats.val": 0.25,
    "stats.test": 0.25,
    "train.resolution": 32,
    "train.test_resolution": 32,
    "train.batch_size": 5,
    "train.hidden": 16,
    "train.head_start": "random",
    "train.device": "cpu",
    "train.workers": 0,
    "train.networks": 1,
}
ATTRIBUTES = ["red", "framed", "never"]


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Project:
    """A folder with pictures, labels, settings and what the stages write."""

    folder: Path

    def run(self, stage: str, *more: object, expect: int = 0) -> Result:
        """The stage as `python -m` would run it, without the seconds that a new interpreter takes."""
        places: dict[str, list[object]] = {
            "validate": ["--images", self / "images", "--labels", self / "labels.txt", "--out", self / "clean"],
            "stats": ["--clean", self / "clean"],
            "train": [
                *("--clean", self / "clean", "--model", self / "model.pth"),
                *("--frozen", self / "frozen.safetensors", "--checkpoint", self / "checkpoint"),
            ],
            "evaluate": [
                *("--clean", self / "clean", "--frozen", self / "frozen.safetensors"),
                *("--model", self / "model.pth", "--decision", self / "decision.json", "--card", self / "MODEL_CARD.md"),
            ],
            "predict": ["--model", self / "model.pth", "--decision", self / "decision.json"],
            "export": ["--model", self / "model.pth", "--decision", self / "decision.json"],
        }
        arguments = [*places[stage], "--params", self / "params.yaml", *more]
        if stage not in ("predict", "export"):
            arguments += ["--metrics", self / "metrics"]
        out, err = io.StringIO(), io.StringIO()
        code: Any = 0
        module = importlib.import_module(f"stages.{stage}")
        argv = [stage, *map(str, arguments)]
        with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                errors.run_stage(module.main)
            except SystemExit as end:
                code = end.code
        assert code == expect, f"{stage}: {out.getvalue()}{err.getvalue()}"
        return Result(code, out.getvalue(), err.getvalue())

    def tag(self, folder: Path, *more: object) -> tuple[Result, pd.DataFrame, pd.DataFrame]:
        """Predict on a folder: what was printed, the predictions, the unreadable files."""
        tables = ["--out", self / "predictions.csv", "--unreadable", self / "unreadable.csv"]
        places = ["--images", folder, "--recursive", *tables]
        result = self.run("predict", *places, *more)
        found = (files.read_table(self / name, "predict") for name in ("predictions.csv", "unreadable.csv"))
        return result, *found

    def inputs(self, folds: int) -> Inputs:
        places = {
            "clean": self / "clean",
            "metrics": self / "metrics",
            "model": self / "model.pth",
            "frozen": self / "frozen.safetensors",
        }
        return evaluate.read_inputs(mock.Mock(**places), folds)

    def set(self, changes: dict[str, Any]) -> None:
        """Change settings, given as `section.name` or `name`."""
        settings = yaml.safe_load((self / "params.yaml").read_text())
        for key, value in changes.items():
            section, _, name = key.rpartition(".")
            (settings[section] if section else settings)[name] = value
        (self / "params.yaml").write_text(yaml.safe_dump(settings))

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def draw(seed: int, red: bool, framed: bool) -> Image.Image:
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 200, (8, 8, 3), dtype=np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    pixels = np.array(coarse)
    if red:
        pixels[:, :, 0] = 255
    if framed:
        pixels[:8] = pixels[-8:] = pixels[:, :8] = pixels[:, -8:] = 0
    return Image.fromarray(pixels)


def project(folder: Path, changes: dict[str, Any], never: bool = False) -> Project:
    """24 pictures through validate and stats; with `never` a third attribute of which nothing is known."""
    made = Project(folder)
    (made / "images").mkdir(parents=True)
    chance = np.random.default_rng(1)
    lines = [" ".join(["image", *ATTRIBUTES[: 2 + never]])]
    for number in range(24):
        red, framed = chance.random(2) < [0.5, 0.3]
        draw(number, red, framed).save(made / "images" / f"{number}.png")
        cells = [str(int(red)), "NA" if number % 6 == 5 else str(int(framed)), *["NA"] * never]
        lines.append(" ".join([f"{number}.png", *cells]))
    (made / "labels.txt").write_text("\n".join(lines) + "\n")
    shutil.copy(ROOT / "params.yaml", made / "params.yaml")
    made.set(changes)
    made.run("validate")
    made.run("stats")
    return made


def one_message(result: Result) -> str:
    """The message of a stage that ended with one."""
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    assert result.err.count("error: ") == 1
    return result.err
