"""predict spread over processes: every image in one shard, the merge of all, and what a merge refuses."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from stages.lib import shards
from stages.lib.errors import UserError
from tests.project import Project, one_message


@pytest.fixture
def spread(own: Project) -> Project:
    """24 pictures and a broken file in batches of four, tagged in one piece, and in three shards."""
    (own / "images" / "10b.png").write_text("<html></html>")
    settings = yaml.safe_load((own / "params.yaml").read_text())
    settings["predict"]["batch_size"] = 4
    (own / "params.yaml").write_text(yaml.safe_dump(settings))
    own.run("predict", "--images", own / "images", "--out", own / "whole.csv", "--unreadable", own / "whole-bad.csv")
    for index in (1, 2, 3):
        shard(own, f"{index}/3")
    return own


def shard(project: Project, which: str, *more: object, expect: int = 0):
    where = ("--images", project / "images", "--out", project / "out.csv", "--shard", which)
    return project.run("predict", *where, *more, expect=expect)


def merged(project: Project, expect: int = 0, *more: object):
    where = ("--out", project / "out.csv", "--unreadable", project / "out-bad.csv")
    return project.run("predict", "--merge", *where, *more, expect=expect)


def file(project: Project, index: int, count: int = 3) -> Path:
    return project / f"out.csv.shard-{index}-of-{count}.jsonl"


def test_the_merge_of_all_shards_is_the_run_in_one_piece(spread: Project) -> None:
    assert not (spread / "out.csv").exists()
    result = merged(spread)
    assert "3 shards: 25 files, 24 tagged, 1 could not be read" in result.out
    assert (spread / "out.csv").read_bytes() == (spread / "whole.csv").read_bytes()
    assert (spread / "out-bad.csv").read_bytes() == (spread / "whole-bad.csv").read_bytes()
    assert not list(spread.folder.glob("out.csv.parts*"))
    merged(spread, 3, "--strict")


def test_more_shards_than_batches(spread: Project) -> None:
    for index in (1, 2, 3):
        file(spread, index).unlink()
    for index in range(1, 10):
        shard(spread, f"{index}/9")
    merged(spread)
    assert (spread / "out.csv").read_bytes() == (spread / "whole.csv").read_bytes()


def test_torchrun_says_which_shard_it_is(spread: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [file(spread, index).read_bytes() for index in (1, 2, 3)]
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        file(spread, rank + 1).unlink()
        monkeypatch.setenv("RANK", str(rank))
        spread.run("predict", "--images", spread / "images", "--out", spread / "out.csv")
    assert [file(spread, index).read_bytes() for index in (1, 2, 3)] == before
    where = ("--list", "-", "--out", spread / "out.csv")
    assert "share one standard input" in one_message(spread.run("predict", *where, expect=1))


def test_torchrun_with_one_process_writes_the_table(spread: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    spread.run("predict", "--images", spread / "images", "--out", spread / "one.csv")
    assert (spread / "one.csv").read_bytes() == (spread / "whole.csv").read_bytes()


@pytest.mark.parametrize(("rank", "size"), [("3", "3"), ("-1", "3"), ("first", "3")])
def test_a_launcher_that_makes_no_sense(rank: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(UserError, match=r"RANK is|variable RANK"):
        shards.of_environment()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5", ""])
def test_a_shard_that_is_none(done: Project, tmp_path: Path, text: str) -> None:
    where = ("--images", done / "images", "--out", tmp_path / "out.csv")
    assert "is not i/n" in done.run("predict", *where, f"--shard={text}", expect=2).err


def test_a_merge_without_one_of_the_shards(spread: Project) -> None:
    file(spread, 2).unlink()
    message = one_message(merged(spread, 1))
    assert "shards are missing: 2/3" in message
    assert not (spread / "out.csv").exists()


def test_a_merge_without_any(done: Project, tmp_path: Path) -> None:
    message = one_message(done.run("predict", "--merge", "--out", tmp_path / "out.csv", expect=1))
    assert "there is no out.csv.shard-" in message


def test_a_merge_with_a_shard_twice(spread: Project) -> None:
    shutil.copy(file(spread, 2), spread / "out.csv.shard-2-of-3 (copy).jsonl")
    assert "are the same shard" in one_message(merged(spread, 1))


def test_a_merge_of_different_runs(spread: Project) -> None:
    shard(spread, "2/3", "--threshold", "0.123")
    assert "different runs: other thresholds" in one_message(merged(spread, 1))
    shard(spread, "2/3")
    shard(spread, "1/2")
    assert "other number of shards" in one_message(merged(spread, 1))


def test_a_merge_of_a_shard_that_was_cut_off(spread: Project) -> None:
    whole = file(spread, 2).read_text().splitlines(keepends=True)
    file(spread, 2).write_text("".join(whole[:-1]))
    assert "rows instead of" in one_message(merged(spread, 1))
    for content in ("", "{}\n", json.dumps({"format": shards.FORMAT, "shard": ["a", 1], "run": {}})):
        file(spread, 2).write_text(content)
        assert "is not a shard's file" in one_message(merged(spread, 1))


def test_a_shard_that_is_stopped_has_parts_of_its_own(spread: Project) -> None:
    """Several shards may run at once beside one table."""
    file(spread, 1).unlink()
    (spread / "out.csv.parts-2-of-3").mkdir()
    (spread / "out.csv.parts-2-of-3" / "part-000000000000-000000000004.jsonl").write_text("of another shard")
    shard(spread, "1/3")
    assert len(list((spread / "out.csv.parts-2-of-3").iterdir())) == 1
    merged(spread)
    assert (spread / "out.csv").read_bytes() == (spread / "whole.csv").read_bytes()


@pytest.mark.parametrize("images", [0, 1, 4, 5, 24, 25, 1000])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_hold_every_image_once_in_whole_batches(images: int, count: int) -> None:
    bounds = [shards.Shard(index, count).bounds(images, 4) for index in range(1, count + 1)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == images
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    assert all(start % 4 == 0 or start == images for start, _ in bounds)
    sizes = [end - start for start, end in bounds]
    assert max(sizes) - min(sizes) <= 2 * 4
