"""The digest of a stage's code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stages.lib import code
from tests.test_declared import STAGES, imported


@pytest.mark.parametrize("stage", STAGES)
def test_files_are_those_that_dvc_watches(stage: str) -> None:
    assert code.files_of(f"stages.{stage}") == imported(f"stages.{stage}", set())


def test_the_digest_follows_what_is_imported_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(code.ROOT / "stages", tmp_path / "stages")
    before = code.digest_of("stages.train")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    assert code.digest_of("stages.train") == before
    for name, changes in (("stages/lib/galleries.py", False), ("stages/lib/loss.py", True), ("stages/train.py", True)):
        content = (tmp_path / name).read_text()
        (tmp_path / name).write_text(content + "# more\n")
        assert (code.digest_of("stages.train") != before) == changes, name
        (tmp_path / name).write_text(content)
