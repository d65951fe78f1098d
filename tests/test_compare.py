"""Two experiments by one command: from git, from DVC's cache and from the disk; what it refuses, and how it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import compare
from stages.lib import files, metrics
from stages.lib.errors import UserError, run_stage

ROOT = Path(__file__).parents[1]
PLACE = Path("metrics/predictions.csv")
ATTRIBUTES = ["wide", "bright", "007", "NA"]  # not in the order of the alphabet
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "PYTHONPATH": str(ROOT),
    **{f"GIT_{who}_{what}": "t@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def made(signal: float, seed: int = 0, n_images: int = 120) -> pd.DataFrame:
    """Predictions as evaluate writes them; labels and groups are those of every other seed and signal."""
    chance = np.random.default_rng(99)
    shape = (n_images, len(ATTRIBUTES))
    labels = (chance.random(shape) < 0.4).astype(float)
    unknown = chance.random(shape) < 0.2
    log_odds = signal * (2 * labels - 1) + np.random.default_rng(seed).normal(0, 1, shape)
    labels[unknown] = np.nan
    names = ["NA", "007", "7", *(f"{index}.jpg" for index in range(3, n_images))]
    columns = {
        "image": np.repeat(names, len(ATTRIBUTES)),
        "group": np.repeat(np.arange(n_images) // 2, len(ATTRIBUTES)),
        "attribute": np.tile(ATTRIBUTES, n_images),
        "label": pd.array(labels.ravel(), dtype="Int8"),
        "log_odds": log_odds.ravel().round(6),
        "probability": (1 / (1 + np.exp(-log_odds))).ravel().round(6),
        "decision": (log_odds > 0).ravel().astype(int),
        "base_rate": 0.4,
    }
    return pd.DataFrame(columns)


OLD, NEW = made(0.2), made(1.5, seed=1)


class Repository:
    """A repository with OLD in its first commit, "old", and NEW on the disk."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.command("git", "init", "-q")
        self.command(sys.executable, "-m", "dvc", "init", "-q")
        self.write(OLD)
        self.commit("old")
        self.write(NEW)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    def compare(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stages.compare", *words]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def write(self, table: pd.DataFrame) -> None:
        files.write_table(self.folder / PLACE, table)

    def commit(self, tag: str) -> None:
        self.command("git", "add", "-A")
        self.command("git", "commit", "-qm", tag)
        self.command("git", "tag", tag)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """One for all tests, which only read it."""
    own = {"DVC_SITE_CACHE_DIR": str(tmp_path_factory.mktemp("site"))}
    return Repository(tmp_path_factory.mktemp("repository"), os.environ | ENVIRONMENT | own)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[pd.DataFrame], None]:
    """An empty folder to stand in; `disk(table)` writes metrics/predictions.csv there."""
    monkeypatch.chdir(tmp_path)
    return lambda table: files.write_table(PLACE, table)


def wide(table: pd.DataFrame, name: str) -> np.ndarray:
    """A column as an array (n_images, n_attributes)."""
    return table.pivot(index="image", columns="attribute", values=name)[ATTRIBUTES].to_numpy(float)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, words)])
    run_stage(compare.main)


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch, disk: Callable[[pd.DataFrame], None]) -> Callable[..., None]:
    """`between(old, new, ...)` compares two tables: `old` as of the revision "main", `new` on the disk."""

    def run(old: pd.DataFrame, new: pd.DataFrame, *words: object) -> None:
        def text_of(revision: str, path: Path) -> str:
            assert (revision, path) == ("main", PLACE)
            return Path("old.csv").read_text()

        files.write_table(Path("old.csv"), old)
        monkeypatch.setattr(compare, "from_dvc", text_of)
        disk(new)
        call(monkeypatch, "main", *words)

    return run


def refused(run: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> str:
    """The message on stderr, after exit code 1 and without a word on stdout."""
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


# The command.


def test_workspace_next_to_a_revision(repository: Repository) -> None:
    done = repository.compare("old")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("workspace next to old, on the same 120 test images")
    assert [line.split()[0] for line in lines if not line.startswith(" ")][1:5] == ["AP", "ROC-AUC", "F1", "skill"]
    assert [line.split()[0] for line in lines[2:7]] == [*ATTRIBUTES, "all"]
    ap = [metrics.average_precision(wide(table, "label"), wide(table, "log_odds")) for table in (OLD, NEW)]
    for line, old, new in zip(lines[2:6], *ap, strict=True):
        assert f"{old:.3f} -> {new:.3f}  {new - old:+.3f}" in line
        assert line.endswith("better")


def test_two_revisions_and_either_order(repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(repository.folder)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", repository.environment["DVC_SITE_CACHE_DIR"])
    call(monkeypatch, "old", "HEAD")
    same = capsys.readouterr().out
    assert same.startswith("HEAD next to old")
    assert same.count("no difference that holds") == 4 * 5
    call(monkeypatch, "workspace", "old")
    assert capsys.readouterr().out.count("worse") == 4 * 5


def test_revision_from_the_cache_of_dvc(tmp_path: Path, repository: Repository, monkeypatch, capsys) -> None:
    """As in this project: git ignores the table, and DVC keeps it."""
    own = Repository(tmp_path, repository.environment)
    own.command("git", "rm", "-q", "--cached", str(PLACE))
    own.command(sys.executable, "-m", "dvc", "add", "-q", str(PLACE))
    own.commit("new")
    own.write(OLD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", repository.environment["DVC_SITE_CACHE_DIR"])
    call(monkeypatch, "new")
    assert capsys.readouterr().out.count("worse") == 4 * 5
    for path in (tmp_path / ".dvc/cache/files").rglob("*"):
        if path.is_file():
            path.unlink()
    message = refused(lambda: call(monkeypatch, "new"), capsys)
    assert message.startswith("error: metrics/predictions.csv of new can't be read: ")
    assert "dvc pull" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["newt"], "metrics/predictions.csv of newt can't be read: "),
        (["old", "0123456"], "metrics/predictions.csv of 0123456 can't be read: "),
        (["old", "--predictions", "metrics/other.csv"], "metrics/other.csv of old can't be read: "),
        (["workspace", "--predictions", "metrics/other.csv"], "metrics/other.csv is missing; the evaluate stage writes it"),
    ],
    ids=["unknown revision", "unknown second revision", "no such file then", "no such file now"],
)
def test_what_is_not_there(words: list[str], expected: str, repository: Repository, monkeypatch, capsys) -> None:
    monkeypatch.chdir(repository.folder)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", repository.environment["DVC_SITE_CACHE_DIR"])
    message = refused(lambda: call(monkeypatch, *words), capsys)
    assert message.startswith(f"error: {expected}")
    assert message.count("\n") == 1
    if "can't be read" in expected:
        assert "dvc exp show" in message
        assert "dvc pull" in message


def test_unknown_revision_as_a_command(repository: Repository) -> None:
    done = repository.compare("newt")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: metrics/predictions.csv of newt can't be read: ")
    assert "Traceback" not in done.stderr


def test_a_folder_without_git(disk: Callable[[pd.DataFrame], None], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    disk(NEW)
    message = refused(lambda: call(monkeypatch, "main"), capsys)
    assert "metrics/predictions.csv of main can't be read: " in message


def test_a_revision_whose_file_is_no_text(tmp_path: Path, repository: Repository, monkeypatch, capsys) -> None:
    own = Repository(tmp_path, repository.environment)
    (tmp_path / PLACE).write_bytes(b"image,group\n\xff\xfe\n")
    own.commit("damaged")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", repository.environment["DVC_SITE_CACHE_DIR"])
    assert "is not a table" in refused(lambda: call(monkeypatch, "old"), capsys)
    own.write(NEW)
    message = refused(lambda: call(monkeypatch, "damaged"), capsys)
    assert "metrics/predictions.csv of damaged" in message


# Tables.


def test_table_has_both_scores_under_the_names_of_the_revisions(between: Callable[..., None], capsys) -> None:
    between(OLD, NEW, "--out", "new folder/table.csv")
    table = files.read_table(Path("new folder/table.csv"), "compare")
    assert list(table) == ["score", "attribute", "workspace", "main", "difference", "low", "high", "p", "word"]
    assert list(table["attribute"]) == [*ATTRIBUTES, "all together"] * 4
    assert list(table["score"]) == np.repeat(["ap", "roc_auc", "f1", "skill"], 5).tolist()
    np.testing.assert_allclose(table["difference"], table["workspace"] - table["main"], atol=2e-6)  # rounded to 6 digits
    assert (table["word"] == "better").all()
    assert "workspace next to main" in capsys.readouterr().out


def test_nothing_is_written_without_being_asked(between: Callable[..., None]) -> None:
    between(OLD, NEW)
    assert sorted(path.name for path in Path().rglob("*.csv")) == ["old.csv", "predictions.csv"]


def test_order_of_the_rows_does_not_matter(between: Callable[..., None], capsys) -> None:
    between(OLD, NEW)
    expected = capsys.readouterr().out
    between(OLD, NEW.sample(frac=1, random_state=0))
    assert capsys.readouterr().out == expected
    # Images in another order; the attributes keep that of the first table.
    between(OLD.iloc[::-1].sort_values("attribute", key=lambda names: names.map(ATTRIBUTES.index), kind="stable"), NEW)
    assert capsys.readouterr().out == expected


def test_names_that_look_like_numbers_or_nothing_stay_as_they_are(disk: Callable[[pd.DataFrame], None]) -> None:
    disk(OLD)
    table = compare.predictions(compare.WORKSPACE, PLACE)
    assert {"NA", "007", "7"} < set(table["image"])
    assert list(pd.unique(table["attribute"])) == ATTRIBUTES
    assert table["label"].isna().sum() == OLD["label"].isna().sum() > 0


def test_arrays_are_the_cells_of_the_table(disk: Callable[[pd.DataFrame], None]) -> None:
    disk(NEW.sample(frac=1, random_state=1).sort_values("attribute", kind="stable"))
    table = compare.predictions(compare.WORKSPACE, PLACE)
    found = compare.outcome(table, ATTRIBUTES)
    cells = NEW.set_index(["image", "attribute"])
    for row, image in enumerate(sorted(NEW["image"].unique())):
        for column, attribute in enumerate(ATTRIBUTES):
            cell = cells.loc[(image, attribute)]
            assert same_label(found.targets[row, column], cell["label"])
            assert found.log_odds[row, column] == cell["log_odds"]
            assert found.decided[row, column] == cell["decision"]
            assert found.constant[row, column] == pytest.approx(np.log(0.4 / 0.6))
        assert found.groups[row] == cell["group"]


def same_label(found: float, label: object) -> bool:
    return bool(np.isnan(found)) if label is pd.NA else found == label


def test_near_duplicates_count_as_one(between: Callable[..., None]) -> None:
    """Every image is there four times: the interval is that of the groups in the table."""
    widths = []
    for together in (True, False):
        old, new = (
            pd.concat([table.assign(image=f"{copy}_" + table["image"]) for copy in range(4)], ignore_index=True)
            for table in (OLD, NEW)
        )
        if not together:
            old, new = (table.assign(group=pd.factorize(table["image"])[0]) for table in (old, new))
        between(old, new, "--out", "table.csv")
        table = files.read_table(Path("table.csv"), "compare")
        widths.append(table["high"] - table["low"])
    # Four copies of two images in a group: the width is up to sqrt(8) times that of independent rows.
    assert (widths[0] > 1.5 * widths[1]).all()


def test_undefined_attribute_says_so(between: Callable[..., None], capsys) -> None:
    unknown = {"label": OLD["label"].where(OLD["attribute"] != "007", pd.NA)}
    between(OLD.assign(**unknown), NEW.assign(**unknown))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.split()[0] == "007"]
    assert len(lines) == 4
    assert all("undefined" in line for line in lines)


def test_many_attributes_are_cut_short_but_for_the_macro_score(between: Callable[..., None], capsys) -> None:
    rows = OLD[OLD["attribute"] == "wide"]
    old = pd.concat([rows.assign(attribute=f"a{number:02}") for number in range(25)])
    between(old, old, "--out", "table.csv")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:23]] == [*(f"a{number:02}" for number in range(20)), "all"]
    assert len(files.read_table(Path("table.csv"), "compare")) == 4 * 26


# What is refused.


def without(image: str, table: pd.DataFrame = OLD) -> pd.DataFrame:
    return table[table["image"] != image]


def with_label(label: object, image: str = "007", attribute: str = "wide") -> pd.DataFrame:
    changed = OLD.copy()
    changed.loc[(changed["image"] == image) & (changed["attribute"] == attribute), "label"] = label
    return changed


REFUSED = {  # old, new -> parts of the message
    "image only before": (OLD, without("007"), ["4 scored labels are in one only (e.g. '007', ", "in main)"]),
    "image only now": (without("NA"), OLD, ["4 scored labels are in one only (e.g. 'NA', ", "in workspace)"]),
    "similar names": (without("7"), without("007"), ["8 scored labels are in one only"]),
    "attribute only now": (OLD[OLD["attribute"] != "NA"], OLD, ["120 scored labels are in one only", ", NA, in workspace)"]),
    "other groups": (
        OLD,
        OLD.assign(group=OLD["group"].where(OLD["image"] != "007", 999)),
        ["groups of near-duplicates differ"],
    ),
    "0 and 1": (with_label(0), with_label(1), ["1 labels differ (e.g. '007', wide)"]),
    "NA and 0": (with_label(pd.NA), with_label(0), ["1 labels differ (e.g. '007', wide)"]),
    "1 and NA": (with_label(1), with_label(pd.NA), ["1 labels differ (e.g. '007', wide)"]),
    "rows and labels": (with_label(0), without("NA", with_label(1)), ["4 scored labels are in one only (e.g. 'NA', "]),
}


def test_other_numbers_for_the_same_groups_are_no_difference(between, capsys) -> None:
    """As after a row of the training images was taken out."""
    between(OLD, NEW.assign(group=NEW["group"] * 3 + 7))
    assert "workspace next to main" in capsys.readouterr().out


def test_a_row_twice_is_refused(between, capsys) -> None:
    message = refused(lambda: between(OLD, pd.concat([OLD, OLD.iloc[[0]]])), capsys)
    assert "of workspace names" in message
    assert "twice for one attribute" in message


@pytest.mark.parametrize(("old", "new", "parts"), REFUSED.values(), ids=REFUSED.keys())
def test_different_rows_are_refused(old: pd.DataFrame, new: pd.DataFrame, parts: list[str], between, capsys) -> None:
    message = refused(lambda: between(old, new, "--out", "table.csv"), capsys)
    assert message.startswith("error: main and workspace can't be compared: ")
    assert all(part in message for part in parts)
    assert "Compare runs with the same data, seed, folds and stats section" in message
    assert not Path("table.csv").exists()


def test_equal_rows_are_not_refused() -> None:
    for table in (OLD, with_label(pd.NA)):
        compare.refuse_different_rows(table, table.assign(log_odds=0), "main", "workspace")


@pytest.mark.parametrize("column", ["image", "group", "attribute", "label", "log_odds", "decision", "base_rate"])
def test_missing_column(column: str, disk: Callable[[pd.DataFrame], None]) -> None:
    disk(OLD.drop(columns=column))
    with pytest.raises(UserError, match=f"^metrics/predictions.csv of workspace has no column '{column}': .*dvc repro"):
        compare.predictions(compare.WORKSPACE, PLACE)


def test_table_of_an_earlier_version(between: Callable[..., None], capsys) -> None:
    message = refused(lambda: between(OLD.drop(columns=["group", "base_rate"]), NEW), capsys)
    assert "metrics/predictions.csv of main has no column 'base_rate'" in message


def test_empty_tables(between: Callable[..., None], capsys) -> None:
    assert "metrics/predictions.csv of main is empty" in refused(lambda: between(OLD[:0], NEW), capsys)
    assert "metrics/predictions.csv of workspace is empty" in refused(lambda: between(OLD, NEW[:0]), capsys)


def test_files_that_are_no_tables(disk: Callable[[pd.DataFrame], None], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    disk(OLD)
    for content in (b"", b"\xff\xfe\x00", b'image,group\n"1,2\n'):
        PLACE.write_bytes(content)
        message = refused(lambda: call(monkeypatch, "workspace"), capsys)
        assert message.startswith("error: metrics/predictions.csv is not a table (")
        assert "dvc repro --force evaluate" in message


def test_a_revision_whose_file_is_no_table(disk: Callable[[pd.DataFrame], None], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    disk(NEW)
    for content in ("", 'image,group\n"1,2\n'):
        monkeypatch.setattr(compare, "from_dvc", lambda *_, text=content: text)
        message = refused(lambda: call(monkeypatch, "main"), capsys)
        assert message.startswith("error: metrics/predictions.csv of main is not a table (")


def test_smallest_table(between: Callable[..., None], capsys) -> None:
    one = OLD[OLD["image"] == "007"]
    between(one, one)
    out = capsys.readouterr().out
    assert "on the same 1 test images" in out
    assert "undefined: one class only" in out
