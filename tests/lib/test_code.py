"""The digest of a stage's code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stages.lib import code


def test_files_are_the_imports_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").mkdir()
    contents = {
        "made/one.py": "import json\nfrom made import two\n",
        "made/two.py": "def late():\n    from made.three import name\n    import made.one\n",
        "made/three.py": "import made.four as other\n",
        "made/four.py": "",
        "made/five.py": "from made import one\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    assert code.files_of("made.one") == {"made/one.py", "made/two.py", "made/three.py", "made/four.py"}
    assert code.files_of("made.four") == {"made/four.py"}


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
