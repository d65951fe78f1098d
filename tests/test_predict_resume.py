"""predict after a kill: it carries on where it stopped, ends with the same bytes, and never mixes two runs."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import yaml

from stages.lib import files, images, parts, tables, tagging
from stages.lib.errors import UserError
from tests.project import ROOT, Project, one_message

KILLS = 3


class Stopped(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def many(own: Project) -> Iterator[Project]:
    """24 pictures and two broken files, in parts of six."""
    (own / "images" / "10b.png").write_text("<html></html>")
    (own / "images" / "7b.png").write_bytes(b"")
    settings = yaml.safe_load((own / "params.yaml").read_text())
    settings["predict"]["batch_size"] = 3
    (own / "params.yaml").write_text(yaml.safe_dump(settings))
    with mock.patch.object(parts, "IMAGES", 6):
        yield own


def where(project: Project, out: str) -> list[object]:
    return ["--images", project / "images", "--out", project / out, "--unreadable", project / f"bad-{out}.csv"]


def stop_after(project: Project, n_images: int, *more: object, images: bool = True) -> None:
    """Run until so many images have been answered, and stop as if the process had ended."""
    answered, done = tagging.answered, 0

    def counted(predictor, batch):
        nonlocal done
        if done >= n_images:
            raise Stopped
        done += len(batch[0])
        return answered(predictor, batch)

    with mock.patch.object(tagging, "answered", counted), pytest.raises(Stopped):
        project.run("predict", *(where(project, "out.csv") if images else ["--out", project / "out.csv"]), *more)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_stopped_run_carries_on_and_ends_with_the_same_bytes(many: Project, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    many.run("predict", *where(many, f"whole{ending}"))
    stop_after(many, 15)
    shutil.move(many / "out.csv.parts", many / f"out{ending}.parts")
    with mock.patch.object(images, "open_square", side_effect=images.open_square) as opened:
        result = many.run("predict", *where(many, f"out{ending}"))
    assert opened.call_count == 26 - 12
    assert "12 of 26 images are done already" in result.err
    assert (many / f"out{ending}").read_bytes() == (many / f"whole{ending}").read_bytes()
    assert (many / f"bad-out{ending}.csv").read_bytes() == (many / f"bad-whole{ending}.csv").read_bytes()
    assert not (many / f"out{ending}.parts").exists()


def test_a_run_that_is_stopped_again_and_again(many: Project) -> None:
    many.run("predict", *where(many, "whole.csv"))
    for _ in range(4):
        stop_after(many, 6)
    many.run("predict", *where(many, "out.csv"))
    assert (many / "out.csv").read_bytes() == (many / "whole.csv").read_bytes()


def test_images_that_changed_after_the_kill_are_tagged_again(many: Project) -> None:
    stop_after(many, 20)
    place = many / "images" / "0.png"
    shutil.copy(many / "images" / "1.png", place)
    os.utime(many / "images" / "2.png", ns=(0, 1))  # the same pixels, so far as anybody knows without reading them
    result = many.run("predict", *where(many, "out.csv"))
    assert "parts are done again" in result.err
    table = files.read_table(many / "out.csv", "predict").set_index("image")
    assert table.loc["0.png", "red_probability"] == pytest.approx(table.loc["1.png", "red_probability"], abs=1e-5)
    many.run("predict", *where(many, "whole.csv"))
    assert (many / "out.csv").read_bytes() == (many / "whole.csv").read_bytes()


def test_a_file_that_came_after_the_kill_is_seen(many: Project, tmp_path: Path) -> None:
    first = many / "images" / "0.png"  # in the first part of the folder's order
    kept = first.read_bytes()
    names = sorted(place.name for place in (many / "images").iterdir())
    (many / "list.txt").write_text("\n".join(f"images/{name}" for name in names))
    first.unlink()
    stop_after(many, 15, *["--list", many / "list.txt"], images=False)
    first.write_bytes(kept)
    result = many.run("predict", "--list", many / "list.txt", "--out", many / "out.csv")
    assert "1 parts are done again" in result.err
    assert not files.read_table(many / "out.csv", "predict")["reason"][0]


def test_a_part_that_is_lost_is_made_again(many: Project) -> None:
    many.run("predict", *where(many, "whole.csv"))
    stop_after(many, 20)
    sorted((many / "out.csv.parts").glob("part-*"))[1].unlink()
    many.run("predict", *where(many, "out.csv"))
    assert (many / "out.csv").read_bytes() == (many / "whole.csv").read_bytes()


@pytest.mark.parametrize("content", ["", "[1]\n" * 6, '["a", [], [], "x"]\n' * 5, "\0\n"])
def test_a_part_that_is_damaged_is_named(many: Project, content: str) -> None:
    stop_after(many, 20)
    part = sorted((many / "out.csv.parts").glob("part-*"))[1]
    part.write_text(content)
    message = many.run("predict", *where(many, "out.csv"), expect=1).err.splitlines()[-1]
    assert message.startswith(f"error: {part} ")
    part.unlink()  # the way out that the message names
    many.run("predict", *where(many, "out.csv"))


def test_a_damaged_part_writes_no_table(many: Project) -> None:
    stop_after(many, 20)
    sorted((many / "out.csv.parts").glob("part-*"))[2].write_text("")
    many.run("predict", *where(many, "out.csv"), expect=1)
    assert not (many / "out.csv").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("threshold", "thresholds or calibration"),
        ("batch_size", "batch_size"),
        ("tta", "tta"),
        ("image", "images, names of images"),
        ("folder", "folder of images"),
        ("model", "model"),
    ],
)
def test_another_run_is_not_mixed_in(many: Project, change: str, named: str) -> None:
    stop_after(many, 15)
    more, places = [], where(many, "out.csv")
    if change == "threshold":
        more = ["--threshold", "0.123"]
    elif change in ("batch_size", "tta"):
        settings = yaml.safe_load((many / "params.yaml").read_text())
        settings["predict"][change] = {"batch_size": 4, "tta": True}[change]
        (many / "params.yaml").write_text(yaml.safe_dump(settings))
    elif change == "image":
        shutil.copy(many / "images" / "1.png", many / "images" / "one_more.png")
    elif change == "folder":
        shutil.copytree(many / "images", many / "twins")
        places[1] = many / "twins"
    else:
        with open(many / "model.pth", "ab") as opened:  # the archive's reader ignores what follows
            opened.write(b"\0")
        decision = (many / "decision.json").read_text().split('"')
        decision[3] = files.fingerprint(many / "model.pth")
        (many / "decision.json").write_text('"'.join(decision))
    message = one_message(many.run("predict", *places, *more, expect=1))
    assert f"unfinished run of other {named}." in message
    assert "--restart" in message
    result = many.run("predict", *places, *more, "--restart")
    assert "done already" not in result.err
    assert not (many / "out.csv.parts").exists()


def test_two_processes_do_not_work_on_one_table(many: Project) -> None:
    (many / "out.csv.parts").mkdir()
    with open(many / "out.csv.parts" / "lock", "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another process is working" in one_message(many.run("predict", *where(many, "out.csv"), expect=1))
    many.run("predict", *where(many, "out.csv"))


def test_a_foreign_file_among_the_parts_is_left_alone(many: Project) -> None:
    (many / "out.csv.parts").mkdir()
    (many / "out.csv.parts" / "thesis.txt").write_text("mine")
    many.run("predict", *where(many, "out.csv"))
    assert [path.name for path in (many / "out.csv.parts").iterdir()] == ["thesis.txt"]


def test_a_full_disk_is_one_message_and_keeps_what_is_done(many: Project) -> None:
    stop_after(many, 15)
    with mock.patch.object(files.os, "fsync", side_effect=OSError(28, "No space left on device")):
        message = one_message(many.run("predict", *where(many, "out.csv"), expect=1))
    assert "No space left on device" in message
    assert len(list((many / "out.csv.parts").glob("part-*"))) == 2


def test_a_kill_between_the_table_and_the_end_costs_nothing(many: Project) -> None:
    many.run("predict", *where(many, "whole.csv"))
    with mock.patch.object(files, "write_table", side_effect=Stopped), pytest.raises(Stopped):
        many.run("predict", *where(many, "out.csv"))
    assert "26 of 26 images are done already" in many.run("predict", *where(many, "out.csv")).err
    assert (many / "bad-out.csv.csv").read_bytes() == (many / "bad-whole.csv.csv").read_bytes()


def test_parts_are_whole_batches_and_all_of_the_images() -> None:
    for start, end, size in [(0, 0, 3), (0, 1, 3), (0, 26, 3), (9, 26, 3), (0, 24, 3), (6, 7, 1)]:
        bounds = parts.cut(start, end, size)
        assert [number for first, after in bounds for number in range(first, after)] == list(range(start, end))
        assert all((after - first) % size == 0 for first, after in bounds[:-1])


def test_a_row_comes_back_as_it_was(tmp_path: Path) -> None:
    rows = [tables.Row("a\\b \u2028.png", [0.1, 1e-06], [0, 1], ""), tables.Row("b", [], [], "why: \u00e9")]
    assert list(parts.parsed((parts.line(row) for row in rows), tmp_path, 2)) == rows
    with pytest.raises(UserError, match="has 2 rows instead of 3"):
        list(parts.parsed((parts.line(row) for row in rows), tmp_path, 3))


def test_killed_at_random_moments(many: Project) -> None:
    """SIGKILL to a process of its own, each time a little further on; see tests/bench/predict_kills.py for twenty."""
    many.run("predict", *where(many, "whole.csv"))
    # Slow enough that a kill finds it at work, in parts as small as above.
    slow = (
        "import time; from stages import predict; from stages.lib import errors, parts, tagging; parts.IMAGES = 6; "
        "before = tagging.answered\n"
        "def answered(*given):\n    time.sleep(0.3); return before(*given)\n"
        "tagging.answered = answered; errors.run_stage(predict.main)"
    )
    more = ["--model", many / "model.pth", "--decision", many / "decision.json", "--params", many / "params.yaml"]
    command = [sys.executable, "-c", slow, *map(str, [*where(many, "out.csv"), *more])]
    chance, done = random.Random(0), 0
    for _ in range(KILLS):
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list((many / "out.csv.parts").glob("part-*"))) <= done and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.wait()
        done = len(list((many / "out.csv.parts").glob("part-*")))
    assert 0 < done < 5
    many.run("predict", *where(many, "out.csv"))
    assert (many / "out.csv").read_bytes() == (many / "whole.csv").read_bytes()
