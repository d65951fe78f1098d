"""Stages run in a folder of their own, with settings of their own: what the measurements of whole trainings share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml


def validate(base: Path, images: Path, labels_file: Path, changes: Sequence[str]) -> None:
    """Run validate; `base` gets what it writes."""
    base.mkdir(exist_ok=True)
    where = ("--images", images, "--labels", labels_file, "--out", base / "clean", "--metrics", base / "metrics")
    run("validate", *where, "--params", settings(base, changes, 0))


def train(own: Path, changes: Sequence[str], seed: int) -> None:
    run("train", *places(own, changes, seed), *model_places(own), "--checkpoint", own / "checkpoint")


def model_places(own: Path) -> tuple[object, ...]:
    """Where train writes its model, and evaluate finds it."""
    return ("--model", own / "model.pth", "--frozen", own / "frozen.safetensors")


def places(own: Path, changes: Sequence[str], seed: int) -> tuple[object, ...]:
    """Where stats, train and evaluate of a run in `own` find what they read, with `changes` to the settings."""
    return ("--clean", own / "clean", "--metrics", own / "metrics", "--params", settings(own, changes, seed))


def settings(folder: Path, changes: Sequence[str], seed: int) -> Path:
    """params.yaml with changes, in `folder`."""
    content = yaml.safe_load(Path("params.yaml").read_text())
    for change in [f"seed={seed}", *changes]:
        key, _, value = change.partition("=")
        section, _, name = key.rpartition(".")
        (content[section] if section else content)[name] = yaml.safe_load(value)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def copied(base: Path, own: Path) -> None:
    """Let `own` have what validate wrote in `base`, as links: pixels are large. Whoever changes a file removes its link first."""
    shutil.copytree(base / "clean", own / "clean", copy_function=os.link)


def run(stage: str, *arguments: object) -> None:
    done = subprocess.run([sys.executable, "-m", f"stages.{stage}", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{stage}: {done.stderr}")
