"""The measurements under tests/bench still fit the code: each can be imported, and those of speed run once on four pictures."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from stages.lib import params
from tests.bench import contenders, speed
from tests.project import ROOT, draw

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
