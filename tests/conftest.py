"""What several tests share: made pictures, settings with changes, stages as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

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
