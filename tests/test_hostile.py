"""Files that nobody would write by mistake: they are refused with a message, or do no harm."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.lib import files, images, labels, model_file, params, parts, pixels, tables
from stages.lib.errors import UserError
from stages.lib.faults import EFFECTS, FORMULA
from stages.lib.preprocessing import Preprocessing, parsed
from stages.train import READS
from tests.bench import fuzz
from tests.project import ROOT, Project

FRAME = images.Frame(32, "squash", 1, 20)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
few = settings(quick, max_examples=6)  # for what takes a tenth of a second
# What may stand where a model file should have a number, a name, a list or a tensor.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("seeds")
    return {name: target.seeds(folder)[0] for name, target in fuzz.TARGETS.items()}


# Readers of bytes: fuzz.py tries many more.


@quick
@given(content=st.binary(max_size=200) | st.text(alphabet='a1 0NA,"\n\r\t#=\0\ufeffé\u2028./', max_size=200).map(str.encode))
def test_a_labels_file_of_any_bytes_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    fuzz.read_labels(content, tmp_path)


@quick
@given(content=st.binary(max_size=200) | st.text(alphabet="seed:-[]{}&*!|>\"' 01\n\t", max_size=200).map(str.encode))
def test_settings_of_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    fuzz.read_settings(content, tmp_path)


@few
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
@pytest.mark.parametrize("name", list(fuzz.TARGETS))
def test_a_spoilt_byte_or_a_cut_is_read_or_refused(seeds, tmp_path: Path, name: str, at: int, byte: int, cut: bool) -> None:
    content = seeds[name]
    place = at % len(content)
    spoilt = content[:place] if cut else content[:place] + bytes([byte]) + content[place + 1 :]
    fuzz.TARGETS[name].read(spoilt, tmp_path)


@few
@given(value=ANYTHING)
def test_any_value_of_a_setting_is_taken_or_refused(tmp_path: Path, value: Any) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, name in ((content, "seed"), (content, "dropout"), (content["train"], "batch_size"), (content, "train")):
        before = section[name]
        section[name] = value
        fuzz.read_settings(yaml.safe_dump(content).encode(), tmp_path)
        section[name] = before


@quick
@given(content=st.fixed_dictionaries(dict.fromkeys(Preprocessing.__dataclass_fields__, ANYTHING)) | ANYTHING)
def test_any_preprocessing_is_taken_or_refused(content: Any) -> None:
    try:
        parsed(content)
    except ValueError:
        return
    raise AssertionError(f"{content} was taken")


@quick
@given(value=ANYTHING)
@pytest.mark.parametrize("key", ["model", "attributes", "log_pos_weight", "temperature", "threshold"])
def test_any_decision_is_taken_or_refused(tmp_path: Path, seeds, key: str, value: Any) -> None:
    content = json.loads(seeds["decision"])
    target = content if key in content else content["attributes"]["red"]
    target[key] = value if not isinstance(value, bytes) else repr(value)
    fuzz.read_decision(json.dumps(content, default=repr).encode(), tmp_path)


DEEP = "[" * 100_000


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}", "\0", "\ufeff{}"])
def test_json_that_no_parser_takes_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json is not JSON \(.*\); run 'dvc repro --force stats'"):
        files.read_json(tmp_path / "x.json", "stats")
    with pytest.raises(UserError, match="is damaged in row 1"):
        list(parts.parsed([text + "\n"], tmp_path / "part", 1))


def laughing(levels: int = 12) -> str:
    """Aliases in aliases: 9 to the power of `levels` items, written out."""
    names = "abcdefghijklmnopqrstuvwxyz"
    lines = ["a: &a [" + ", ".join(["x"] * 9) + "]"]
    lines += [f"{names[i]}: &{names[i]} [" + ", ".join([f"*{names[i - 1]}"] * 9) + "]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (laughing() + "lr: *l\n", r"lr: \[\[.{0,300}\] is not valid; expected a number above 0"),
        ("lr: &q [*q]\n", r"lr: \[+\.\.\.\]+ is not valid"),
        ("seed: 2026-13-13\n", "is not YAML: month must be in"),
        ("seed: " + "9" * 5000 + "\n", "is not YAML: Exceeds the limit"),
        (DEEP, "is not YAML: maximum recursion"),
        ("seed: !!python/object/apply:os.system [true]\n", "is not YAML: could not determine a constructor"),
    ],
)
def test_settings_that_would_fill_the_memory_or_run_something_are_one_message(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "params.yaml").write_text(text[:2000] if text == DEEP else text)
    with pytest.raises(UserError, match=part):
        params.load(tmp_path / "params.yaml", READS)


def test_a_pixel_store_of_less_than_no_picture(tmp_path: Path) -> None:
    head = b"{'descr':'|u1','fortran_order':False,'shape':(-1,9,9,3)}\n"
    (tmp_path / "pixels.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    with pytest.raises(UserError, match=r"pixels\.npy is damaged"):
        pixels.read(tmp_path / "pixels.npy")


def test_of_what_a_link_leads_to_nothing_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"secret: 12345")
    (tmp_path / "x.png").symlink_to(tmp_path / "key")
    with pytest.raises(images.ImageFault, match="not an image in a known format") as caught:
        images.open_square(tmp_path / "x.png", FRAME)
    assert "secret" not in caught.value.reason
    with pytest.raises(images.ImageFault, match="starts with b'secret: 12345'"):
        images.open_square(tmp_path / "key", FRAME)


class Dangerous:
    def __reduce__(self):
        return pytest.fail, ("something in the file was executed",)


@pytest.mark.parametrize("name", ["model.pth", "x.safetensors", "pixels.npy"])
def test_a_pickle_under_any_name_is_not_executed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Dangerous()))
    readers = {"model.pth": model_file.load, "pixels.npy": pixels.read}
    with pytest.raises(UserError):
        readers.get(name, lambda path: files.read_arrays(path, "train", "features"))(tmp_path / name)


# Names.


def test_names_and_links_do_not_reach_out_of_the_folder(tmp_path: Path) -> None:
    folder, secret = tmp_path / "images", tmp_path / "secret"
    (folder / "sub").mkdir(parents=True)
    secret.mkdir()
    (secret / "s.png").write_bytes(b"x")
    (folder / "a.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(secret / "s.png")
    (folder / "sub" / "up").symlink_to(secret)
    (folder / "in.png").symlink_to(folder / "a.png")
    (folder / "lost.png").symlink_to(tmp_path / "nowhere")
    for name in ("../secret/s.png", "/etc/passwd", "sub/../../secret/s.png", "link.png", "sub/up/s.png", "a\0.png", ".", ".."):
        assert images.inside(folder, name) is None, name
    for name in ("a.png", "./a.png", "sub/../a.png", "in.png", "lost.png", "missing.png"):
        assert images.inside(folder, name) is not None, name
    (tmp_path / "elsewhere").symlink_to(folder)  # the folder itself may be a link
    assert images.inside(tmp_path / "elsewhere", "in.png") is not None
    assert images.inside(tmp_path / "elsewhere", "link.png") is None


def test_links_into_a_dvc_cache_are_followed(tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "files" / "md5" / "0a" / ("b" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"x")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to(cached)
    assert images.inside(tmp_path / "images", "a.png") is not None


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "a\x1b[2J", "a\u202eb", "x" * 201])
def test_attribute_names_that_would_do_harm_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "labels.csv").write_text(f"image,{name}\na.jpg,1\nb.jpg,0\n")
    with pytest.raises(UserError, match=r"labels\.csv, line 1, column 2: attribute name '.*' .*; rename it"):
        labels.read(tmp_path / "labels.csv")


@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A1.png", "+1.png", "-1.png", "@sum.png", "\tx.png", "\rx.png"])
def test_no_cell_of_a_table_starts_a_formula_and_names_come_back(tmp_path: Path, name: str) -> None:
    files.write_table(tmp_path / "t.csv", pd.DataFrame({"image": [name, "./=x"], "value": [name, "1"], "n": [-1.5, 2]}))
    tables.write(tmp_path / "p.csv", ["red"], "m", iter([tables.Row(name, [0.5], [1], "")]))
    for place in ("t.csv", "p.csv"):
        with open(tmp_path / place, newline="") as opened:
            cells = [cell for row in csv.reader(opened) for cell in row]
        assert not [cell for cell in cells if cell.startswith(FORMULA) and cell != "-1.5"]
        if place == "t.csv" or name.isprintable():  # predict escapes other names itself
            assert files.read_table(tmp_path / place, "predict")["image"].iloc[0] == name
    assert tmp_path / f"./{name}" == tmp_path / name  # the same file


# Sizes.


def test_a_line_of_a_hundred_thousand_characters_costs_its_own_row(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("image a\n" + "x" * 100_000 + ".jpg 1\nb.jpg 0\nc.jpg " + "1" * 100_000 + "\n")
    found = labels.read(tmp_path / "labels.txt")
    assert len(found.table) == 3
    assert all(len(fault.message) < 500 for fault in found.faults)
    with pytest.raises(images.ImageFault, match="can't be reached"):
        images.check_file(tmp_path / found.table["image"][0])


def test_ten_thousand_columns(tmp_path: Path) -> None:
    rows = [" ".join([f"{number}.jpg", *["1" if number % 2 else "0"] * 10_000]) for number in range(3)]
    (tmp_path / "labels.txt").write_text("\n".join(rows) + "\n")
    assert labels.read(tmp_path / "labels.txt").table.shape == (3, 10_002)


def bomb(side: int) -> bytes:
    """A PNG of side x side black pixels in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_size(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(20_000))
    assert (tmp_path / "bomb.png").stat().st_size < 1_000_000
    with pytest.raises(images.ImageFault, match="20000 x 20000 pixels, above the limit"):
        images.open_square(tmp_path / "bomb.png", FRAME)


# All at once.


def test_the_pipeline_ends_well_on_a_folder_with_one_of_every_fault(done: Project, tmp_path: Path) -> None:
    """Two dozen good pictures, and beside them what a careless or hostile person can put in: all five stages run."""
    own = Project(tmp_path / "own")
    shutil.copytree(done / "images", own / "images")
    (tmp_path / "outside.png").write_bytes((own / "images" / "0.png").read_bytes())
    shutil.copy(done / "params.yaml", own / "params.yaml")
    good = (own / "images" / "1.png").read_bytes()
    spoil: dict[str, bytes] = {
        "empty.png": b"",
        "page.png": b"<html>404</html>",
        "cut.png": good[:200],
        "bomb.png": bomb(20_000),
        "NA": good,
        "=cmd.png": (own / "images" / "2.png").read_bytes(),
        "b\x1b[2J.png": good,
        "no_row.png": good,
        "vague.png": good,
        "1.PNG": good,
    }
    for name, content in spoil.items():
        (own / "images" / name).write_bytes(content)
    Image.new("RGB", (2000, 3)).save(own / "images" / "long.png")
    frames = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in (250, 10)]
    frames[0].save(own / "images" / "moves.gif", save_all=True, append_images=frames[1:])
    os.mkfifo(own / "images" / "pipe.png")
    (own / "images" / "out.png").symlink_to(tmp_path / "outside.png")
    (own / "images" / "lost.png").symlink_to(tmp_path / "nowhere")
    (own / "images" / "loop.png").symlink_to("loop.png")
    header, *good_lines = (done / "labels.txt").read_text().splitlines()
    lines = ["missing.png 1 0", "../outside.png 1 0", "/etc/passwd 1 0", "out.png 1 0", "lost.png 1 0", "pipe.png 1 1"]
    lines += ["empty.png 1 0", "page.png 0 1", "cut.png 1 1", "bomb.png 1 0", "long.png 1 0", "moves.gif 1 0", "=cmd.png 0 1"]
    lines += ["1.PNG 1 NA", "NA 1 0", "b\x1b[2J.png 1 0", "3.png 1", "4.png yes 1", "5.png 1 1", "5.png 0 0", "6.png 0 0"]
    lines += ["loop.png 1 0", "vague.png yes maybe", "unknown.png NA NA", "7.png \x1b[2J 1"]
    # A third attribute that is present wherever somebody looked.
    lines = [f"{header} always", *(f"{line} 1" for line in good_lines), *(f"{line} NA" for line in lines), "x" * 100_000]
    (own / "labels.txt").write_text("\ufeff" + "\r\n".join(lines) + "\r\n")
    chosen = yaml.safe_load((own / "params.yaml").read_text())
    chosen["validate"] |= {"max_rejected": 0.6, "max_megapixels": 1}
    (own / "params.yaml").write_text(yaml.safe_dump(chosen))
    said = ""
    for stage in ("validate", "stats", "train", "evaluate"):
        result = own.run(stage)
        said += result.out + result.err
    result, predictions, unreadable = own.tag(own / "images")
    said += result.out + result.err
    assert "\x1b" not in said
    assert set(pd.read_csv(own / "clean" / "rejects.csv")["kind"]) == set(EFFECTS)
    assert "=cmd.png" in list(files.read_table(own / "clean" / "labels.csv", "validate")["image"])
    assert len(predictions) == len(os.listdir(own / "images"))
    bad = {"empty.png", "page.png", "cut.png", "bomb.png", "long.png", "pipe.png", "lost.png", "loop.png"}
    assert bad <= set(unreadable["image"])
    assert set(unreadable["image"]) <= bad
