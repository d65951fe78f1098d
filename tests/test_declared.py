"""dvc.yaml says what the code does: deps are the files a stage imports, params are the keys it reads."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from stages.lib import code, params

ROOT = Path(__file__).parents[1]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = ["validate", "stats", "train", "evaluate", "predict"]


def test_five_stages_in_order():
    assert list(PIPELINE["stages"]) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_imports(stage: str):
    declared = {dep for dep in PIPELINE["stages"][stage]["deps"] if dep.endswith(".py")}
    assert declared == code.files_of(f"stages.{stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_keys_read(stage: str):
    assert set(PIPELINE["stages"][stage]["params"]) == set(importlib.import_module(f"stages.{stage}").READS)


def keys(kind: Any, prefix: str = "") -> set[str]:
    hints = get_type_hints(kind)
    found: set[str] = set()
    for item in fields(kind):
        inner = hints[item.name]
        found |= keys(inner, f"{prefix}{item.name}.") if is_dataclass(inner) else {prefix + item.name}
    return found


def test_every_setting_is_read_by_a_stage():
    read = {key for stage in PIPELINE["stages"].values() for key in stage["params"]}
    read |= {"data.images", "data.labels", "predict.images"}  # through the commands
    unread = {key for key in keys(params.Settings) if key not in read and key.split(".")[0] not in read}
    assert not unread


def test_every_setting_has_a_comment():
    text = (ROOT / "params.yaml").read_text().splitlines()
    bare = [
        line for line in text if ":" in line and not line.startswith("#") and not line.rstrip().endswith(":") and "#" not in line
    ]
    assert not bare


def tabled(readme: str) -> dict[str, Any]:
    """Settings and defaults of README's table; in a row `train.patience`, `device` the second is of the same section."""
    found = {}
    for line in readme.split("\n## Settings\n")[1].split("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            names = re.findall(r"`(.+?)`", cells[0])
            section, dot, _ = names[0].rpartition(".")
            dotted = [name if "." in name else section + dot + name for name in names]
            found |= dict(zip(dotted, yaml.safe_load(f"[{cells[1]}]"), strict=True))
    return found


def test_the_readme_tables_every_setting_with_its_default():
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    flat = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    flat |= {f"{name}.{key}": value for name, part in settings.items() if isinstance(part, dict) for key, value in part.items()}
    assert tabled((ROOT / "README.md").read_text()) == flat


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_lead_somewhere(name: str):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\((?!https?:)(.+?)\)", text):
        path, _, anchor = target.partition("#")
        found = (ROOT / name).parent / path if path else ROOT / name
        assert found.is_file(), target
        assert not anchor or anchor in anchors(found.read_text()), target
    used, defined = set(re.findall(r"\]\[(.+?)\]", text)), set(re.findall(r"^\[(.+?)\]: http", text, re.MULTILINE))
    assert used == defined


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_survive_a_failed_run(stage: str):
    """Without `persist` DVC would delete the last good outputs before the stage has checked anything."""
    written = PIPELINE["stages"][stage].get("outs", []) + PIPELINE["stages"][stage].get("metrics", [])
    assert written
    assert all(options["persist"] for out in written for options in out.values())


def test_plots_name_declared_outputs():
    outs = {path for stage in PIPELINE["stages"].values() for out in stage.get("outs", []) for path in out}
    for plot in PIPELINE["plots"]:
        if isinstance(plot, str):
            assert plot in outs
        else:
            assert set(next(iter(plot.values()))["y"]) <= outs
