"""The stats stage as a command, on small made tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ATTRIBUTES = ["striped", "logo", "rare", "never_known"]
KNOWN = (0.0, 1.0)


def make_clean(folder: Path, n_images: int, groups: list[int] | None = None) -> tuple[pd.DataFrame, list[int]]:
    """labels.csv and images.csv as validate leaves them; about one image in four has an earlier one as its twin."""
    rng = np.random.default_rng(0)
    values = rng.choice([0, 1, np.nan], size=(n_images, 4), p=[0.5, 0.3, 0.2])
    values[:, 2] = np.arange(n_images) < 1
    values[:, 3] = np.nan
    if groups is None:
        groups = list(range(n_images))
        for row in range(2, n_images, 4):
            groups[row] = groups[int(rng.integers(0, row))]
    names = [f"{row:03}" for row in range(n_images)]  # no ending: names that a careless reader takes for numbers
    table = pd.DataFrame(values, columns=ATTRIBUTES).astype("Int8")
    table.insert(0, "image", names)
    folder.mkdir()
    table.to_csv(folder / "labels.csv", index=False, na_rep="NA")
    pd.DataFrame({"image": names, "group": groups}).to_csv(folder / "images.csv", index=False)
    return table, groups


def run(run_stage, tmp_path: Path, params: Path):
    return run_stage("stats", "--clean", tmp_path / "clean", "--metrics", tmp_path / "metrics", "--params", params)


def slow_model(rows: list[list[float]], low: float, high: float) -> dict[str, dict[str, float]]:
    rates, weights = {}, {}
    for column, attribute in enumerate(ATTRIBUTES):
        known = [row[column] for row in rows if row[column] in KNOWN]
        ones = sum(known)
        zeros = len(known) - ones
        if known:
            rates[attribute] = ones / len(known)
        weights[attribute] = min(max(zeros / ones, low), high) if ones and zeros else 1.0
    return {"base_rate": rates, "pos_weight": weights}


@pytest.mark.parametrize(("folds", "seed"), [(1, 0), (3, 7)])
def test_outputs(run_stage, settings_file, tmp_path, folds, seed):
    table, groups = make_clean(tmp_path / "clean", 90)
    changes = {"folds": folds, "seed": seed, "stats.pos_weight": "balanced", "stats.pos_weight_max": 2.5}
    done = run(run_stage, tmp_path, settings_file(changes))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for attribute in ATTRIBUTES:
        assert attribute in done.stdout

    dealt = pd.read_csv(tmp_path / "clean" / "splits.csv", dtype=str)
    assert list(dealt.columns) == ["image", "group", "part"]
    assert list(dealt["image"]) == list(table["image"])
    assert dealt["group"].astype(int).tolist() == groups
    part = dealt["part"].tolist()
    names = ["test", "train", "val"] if folds == 1 else ["0", "1", "2"]
    assert sorted(set(part)) == names
    part_of_group: dict[int, str] = {}
    for group, own in zip(groups, part, strict=True):
        assert part_of_group.setdefault(group, own) == own
    assert len(part_of_group) < len(part)  # there are groups of several
    wanted = {"train": 54, "val": 18, "test": 18} if folds == 1 else dict.fromkeys(names, 30)
    for name in names:
        assert abs(part.count(name) - wanted[name]) <= 6

    written = json.loads((tmp_path / "metrics" / "stats.json").read_text())
    assert written["images"] == {name: part.count(name) for name in names}
    assert len(written["models"]) == folds
    values = table[ATTRIBUTES].to_numpy(float, na_value=np.nan).tolist()
    for fold, model in enumerate(written["models"]):
        held = {"val", "test"} if folds == 1 else {str(fold), str((fold + 1) % folds)}
        expected = slow_model([row for row, own in zip(values, part, strict=True) if own not in held], 0.1, 2.5)
        assert model.keys() == expected.keys()
        for figure in expected:
            assert model[figure] == pytest.approx(expected[figure], abs=1e-6)
    assert "never_known" not in written["models"][0]["base_rate"]

    counts = pd.read_csv(tmp_path / "metrics" / "split.csv", dtype={"part": str})
    assert len(counts) == len(names) * len(ATTRIBUTES)
    for row in counts.itertuples():
        inside = [v[ATTRIBUTES.index(row.attribute)] for v, own in zip(values, part, strict=True) if own == row.part]
        positive, negative = inside.count(1.0), inside.count(0.0)
        assert (row.positives, row.negatives, row.unknown) == (positive, negative, len(inside) - positive - negative)
        if positive + negative:
            assert row.positive_rate == pytest.approx(positive / (positive + negative), abs=1e-4)
        else:
            assert np.isnan(row.positive_rate)


@pytest.mark.parametrize(
    ("n_images", "groups", "folds", "missing"),
    [(2, [0, 1], 1, "nothing left for"), (60, [0] * 60, 1, "nothing left for val, test"), (4, None, 10, "nothing left for")],
    ids=["two images", "one group", "more folds than images"],
)
def test_too_few_images(run_stage, settings_file, tmp_path, n_images, groups, folds, missing):
    make_clean(tmp_path / "clean", n_images, groups)
    done = run(run_stage, tmp_path, settings_file({"folds": folds}))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {n_images} images in ")
    assert "too few to split" in done.stderr
    assert missing in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "metrics").exists()


def test_nothing_from_validate(run_stage, settings_file, tmp_path):
    done = run(run_stage, tmp_path, settings_file())
    assert done.returncode == 1
    assert "run 'dvc repro validate'" in done.stderr
    assert "Traceback" not in done.stderr
