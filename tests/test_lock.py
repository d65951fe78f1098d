"""requirements.lock: complete, with hashes, within the ranges of pyproject.toml, and what is installed."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ASKED = [Requirement(text) for text in [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]]


def locked() -> dict[str, tuple[str, str, int]]:
    """Name -> version, marker, number of hashes."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            head = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+?)( ;.*?)?((?: +--hash=sha256:[0-9a-f]{64})*) *(#.*)?", line)
            assert head, f"not a name, a version and hashes: {line[:80]}"
            found[canonicalize_name(head[1])] = head[2], (head[3] or "")[2:].strip(), head[4].count("--hash")
    return found


LOCKED = locked()


def test_every_package_has_hashes() -> None:
    assert len(LOCKED) > len(ASKED)
    assert [name for name, (_, _, hashes) in LOCKED.items() if not hashes] == []


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_the_lock_satisfies_pyproject(asked: Requirement) -> None:
    assert asked.specifier.contains(LOCKED[canonicalize_name(asked.name)][0], prereleases=True)


def test_what_locked_packages_need_is_locked_too() -> None:
    """By what the installed ones say of themselves, on this machine; pip would refuse an incomplete lock with hashes."""
    missing = []
    for name in LOCKED:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another system
            continue
        for needed in map(Requirement, needs):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                version = LOCKED.get(canonicalize_name(needed.name), ("none",))[0]
                if version == "none" or not needed.specifier.contains(version, prereleases=True):
                    missing.append(f"{name} needs {needed}, locked is {version}")
    assert missing == []


def test_what_is_installed_satisfies_pyproject() -> None:
    installed = {asked: metadata.version(asked.name) for asked in ASKED}
    wrong = [f"{asked}: {version}" for asked, version in installed.items() if not asked.specifier.contains(version, True)]
    assert wrong == []
