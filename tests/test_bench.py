"""The measurements under tests/bench still fit the code: each can be imported, and those of speed run once on four pictures."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.lib import params, pixels
from tests.bench import contenders, fewer, speed
from tests.project import ROOT, Project, draw

BENCHES = sorted(path.stem for path in (ROOT / "tests" / "bench").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_can_be_imported(name: str) -> None:
    importlib.import_module(f"tests.bench.{name}")


def test_every_contender_can_do_what_is_measured(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        draw(number, red=True, framed=False).save(path)
    strength = params.load(ROOT / "params.yaml", ("augment",)).augment
    spec = contenders.Spec("test_resnet", "layer3", 32, 2, paths, tmp_path, strength)
    rows = []
    for name, contender in contenders.CONTENDERS.items():
        for measure, work in contender(spec).items():
            work()
            rows.append(speed.row(spec, measure, name, [2.0, 4.0]))
    assert {(row["what"], row["who"]) for row in rows} >= {("train", "ours"), ("evaluate", "limit"), ("predict", "reference")}
    assert all(row["low"] == 1.0 and row["high"] == 2.0 for row in rows)
    assert len(speed.table(rows).splitlines()) == len(rows) + 1
    assert contenders.flops_per_image(spec) > 0


@pytest.mark.parametrize(
    ("hidden", "treatment", "rows"),
    [(0.5, fewer.MASKED, 0), (0.5, fewer.ZERO, 0), (0.3, fewer.COMPLETE, 0), (0.0, fewer.MASKED, 5)],
)
def test_what_is_left_out_is_left_out_of_training_rows_alone(own: Project, hidden: float, treatment: str, rows: int) -> None:
    def read() -> tuple[np.ndarray, np.ndarray]:
        table = pd.read_csv(own / "clean" / "labels.csv").drop(columns="image")
        return table.to_numpy(float), pd.read_csv(own / "clean" / "splits.csv")["part"].to_numpy(str)

    (before, was), _ = read(), fewer.reduce(own.folder, hidden, treatment, rows, seed=0)
    after, part = read()
    training = was == "train"
    np.testing.assert_array_equal(after[~training], before[~training])
    np.testing.assert_array_equal(part[~training], was[~training])
    known = int((~np.isnan(before[training])).sum())
    gone = np.isnan(after[training]) & ~np.isnan(before[training])
    if treatment == fewer.ZERO:
        assert not np.isnan(after[training]).any()
        assert np.nansum(after[training]) < np.nansum(before[training])
    else:
        assert gone.sum() == round(hidden * known)
    left = {fewer.COMPLETE: int((~np.isnan(after[training]).any(axis=1)).sum())}.get(treatment, rows or training.sum())
    assert (part == "train").sum() == left > 0


def test_the_rows_of_an_inner_split_are_those_that_are_kept(own: Project) -> None:
    kept = np.arange(24) % 3 > 0
    fewer.others(own / "clean", own / "inner", kept)
    for name in ("labels.csv", "images.csv"):
        whole, part = (pd.read_csv(folder / name) for folder in (own / "clean", own / "inner"))
        pd.testing.assert_frame_equal(part, whole[kept].reset_index(drop=True), check_dtype=False)
    whole, part = (pixels.read(folder / "pixels.npy") for folder in (own / "clean", own / "inner"))
    assert len(part) == kept.sum()
    assert all(np.array_equal(part[index], whole[row]) for index, row in enumerate(np.flatnonzero(kept)))
