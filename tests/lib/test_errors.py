"""How a stage ends: one message for what a user can mend, a traceback for what is this project's fault."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stages.lib import errors, files
from tests.project import ROOT


def ending(error: BaseException, capsys: pytest.CaptureFixture) -> str:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        errors.run_stage(main)
    assert end.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    return said.err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
def test_what_the_disk_refuses_is_one_message_with_place_and_way_out(number: int, capsys: pytest.CaptureFixture) -> None:
    said = ending(OSError(number, os.strerror(number), "models/model.pth"), capsys)
    assert said.startswith(f"error: models/model.pth: {os.strerror(number)}; {errors.WAYS_OUT[number]}")
    assert said.count("\n") == 1


def test_a_writer_names_the_file_that_was_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "x.json").write_text("earlier")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit):
        errors.run_stage(lambda: files.write_json(tmp_path / "x.json", {"a": 1}))
    assert f"error: {tmp_path}/x.json: No space left on device; free some space" in capsys.readouterr().err
    assert (tmp_path / "x.json").read_text() == "earlier"
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "train.batch_size"),
        (MemoryError(), "train.batch_size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "number of workers"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "train.workers"),
    ],
)
def test_too_little_memory_names_the_setting_to_lower(error: Exception, part: str, capsys: pytest.CaptureFixture) -> None:
    assert part in ending(error, capsys)


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), OSError("x"), FileNotFoundError(2, "x")])
def test_a_fault_of_this_project_keeps_its_traceback(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        errors.run_stage(main)


def test_escape_sequences_do_not_reach_the_terminal(capsys: pytest.CaptureFixture) -> None:
    said = ending(errors.UserError("'\x1b]0;gone\x07\x9b2J.png' is \u202ereversed\nway out"), capsys)
    assert said == "error: '\\x1b]0;gone\\x07\\x9b2J.png' is \\u202ereversed\nway out\n"


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path: Path) -> None:
    files.check_space(tmp_path / "not" / "yet", 1, "a byte")
    with pytest.raises(
        errors.UserError, match=r"a store needs about 1,073,741,824 MiB, and the disk of .* has .* MiB left; free"
    ):
        files.check_space(tmp_path / "not" / "yet", 2**50, "a store")
    assert list(tmp_path.iterdir()) == []


def run(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_an_interrupt_while_libraries_are_imported_ends_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise ImportError('goes on')\n")
    heard = "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"  # a job in the background ignores it
    done = run(tmp_path, "-c", f"{heard}os.execv(sys.executable, [sys.executable, '-m', 'stages.evaluate'])")
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


@pytest.mark.parametrize("before", ["SIG_DFL", "default_int_handler"])
def test_an_interrupt_from_then_on_ends_with_a_message(tmp_path: Path, before: str) -> None:
    program = (
        f"import os, signal\nfrom stages.lib import errors\nsignal.signal(signal.SIGINT, signal.{before})\n"
        "errors.run_stage(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
    )
    done = run(tmp_path, "-c", program)
    assert done.returncode == 130
    assert done.stderr.startswith("interrupted: ")
    assert done.stderr.count("\n") == 1
