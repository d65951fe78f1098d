"""predict on single images: lines for people, JSON for programs, thresholds by attribute, the panel that explains."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.lib import files
from tests.project import Project, one_message


def test_predict_one_image(done: Project) -> None:
    result = done.run("predict", "--image", done / "images" / "3.png", "--threshold", "0.5")
    lines = result.out.splitlines()
    present = []
    assert len(lines) == 3
    for name, line in zip(("red", "framed"), lines, strict=False):
        found = re.fullmatch(r"(\S+) +(present|absent) +([01]\.\d{3})  \(threshold 0\.50\)", line)
        assert found, line
        assert found[1] == name
        assert (found[2] == "present") == (float(found[3]) >= 0.5)
        present += [name] if found[2] == "present" else []
    assert lines[2] == f"present: {', '.join(present) or 'none'}"


@pytest.mark.parametrize(("threshold", "present"), [("0", "red, framed"), ("1", "none")])
def test_predict_one_image_lists_what_is_present(done: Project, threshold: str, present: str) -> None:
    result = done.run("predict", "--image", done / "images" / "3.png", "--threshold", threshold)
    assert result.out.splitlines()[-1] == f"present: {present}"


def test_predict_one_image_uses_the_thresholds_of_the_decision_file(own: Project) -> None:
    content = json.loads((own / "decision.json").read_text())
    content["attributes"]["framed"]["threshold"], content["attributes"]["red"]["threshold"] = 0.0, 1.0
    (own / "decision.json").write_text(json.dumps(content))
    lines = own.run("predict", "--image", own / "images" / "3.png").out.splitlines()
    assert "(threshold 1.00)" in lines[0]
    assert "(threshold 0.00)" in lines[1]
    assert lines[2] == "present: framed"


def test_a_threshold_for_one_attribute_beats_the_one_for_all_in_any_order(done: Project) -> None:
    for order in (["0.25", "framed=1"], ["framed=0.5", "framed=1", "0.25"]):
        more = [word for value in order for word in ("--threshold", value)]
        lines = done.run("predict", "--image", done / "images" / "3.png", *more).out.splitlines()
        assert "(threshold 0.25)" in lines[0]
        assert "(threshold 1.00)" in lines[1]


def test_a_threshold_for_an_attribute_that_is_not_there(done: Project) -> None:
    message = one_message(done.run("predict", "--image", done / "images" / "3.png", "--threshold", "logo=0.8", expect=1))
    assert "no attribute 'logo'" in message
    assert "red, framed" in message


def test_json_says_what_the_lines_say(done: Project) -> None:
    place = done / "images" / "3.png"
    told = done.run("predict", "--image", place, "--threshold", "0.5").out.splitlines()
    answer = json.loads(done.run("predict", "--image", place, "--threshold", "0.5", "--json").out)
    assert answer["image"] == str(place)
    assert files.fingerprint(done / "model.pth").startswith(answer["model"])
    for name, line in zip(("red", "framed"), told, strict=False):
        assert f"{answer['attributes'][name]['probability']:.3f}" in line
        assert answer["attributes"][name]["present"] == (" present " in line)
        assert answer["attributes"][name]["threshold"] == 0.5
    assert f"present: {', '.join(answer['present']) or 'none'}" == told[-1]


def test_several_images_on_the_terminal(done: Project, tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html></html>")
    places = [done / "images" / "3.png", tmp_path / "page.png", done / "images" / "4.png"]
    blocks = done.run("predict", "--image", *places).out.strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == list(map(str, places))
    assert "could not be read: not an image: it is an HTML page" in blocks[1]
    alone = done.run("predict", "--image", places[2]).out.strip()
    assert blocks[2].split("\n", 1)[1] == alone
    done.run("predict", "--image", *places, "--strict", expect=3)
    answers = [json.loads(line) for line in done.run("predict", "--image", *places, "--json").out.splitlines()]
    assert [answer["image"] for answer in answers] == list(map(str, places))
    assert set(answers[1]) == {"image", "reason"}


def test_explain_draws_a_panel(done: Project, tmp_path: Path) -> None:
    result = done.run("predict", "--image", done / "images" / "3.png", "--explain", tmp_path / "why.png")
    assert len(result.out.splitlines()) == 3
    with Image.open(tmp_path / "why.png") as panel:
        assert np.asarray(panel.convert("RGB")).std() > 10


def test_explain_of_a_model_of_several_folds(folded: Project, tmp_path: Path) -> None:
    folded.run("predict", "--image", folded / "images" / "3.png", "--explain", tmp_path / "why.png")
    assert (tmp_path / "why.png").stat().st_size > 1000


def test_explain_refuses_what_it_can_not_draw(done: Project, tmp_path: Path) -> None:
    image = done / "images" / "3.png"
    assert "must be .png" in one_message(done.run("predict", "--image", image, "--explain", tmp_path / "why.txt", expect=1))
    assert "one --image" in done.run("predict", "--image", image, image, "--explain", tmp_path / "why.png", expect=2).err
    (tmp_path / "why.png").mkdir()
    assert "is a folder" in one_message(done.run("predict", "--image", image, "--explain", tmp_path / "why.png", expect=1))


def test_a_name_can_not_write_to_the_terminal(done: Project, tmp_path: Path) -> None:
    hostile = "\x1b[31mred\n.png"
    (tmp_path / hostile).write_bytes((done / "images" / "3.png").read_bytes())
    (tmp_path / "empty\x1b.png").write_bytes(b"")
    result = done.run("predict", "--image", tmp_path / hostile, tmp_path / "empty\x1b.png")
    assert "\x1b" not in result.out
    assert "\\x1b[31mred" in result.out
