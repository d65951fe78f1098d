"""The way of pretrained weights from a server to the network, against a hub on the loopback interface."""

from __future__ import annotations

import errno
import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub as hub
import pytest
import timm
import torch
from huggingface_hub import file_download
from safetensors.torch import save

from stages.lib import backbones, downloads
from stages.lib.errors import UserError
from tests.lib.test_backbones import Executes

NAME = "test_resnet"  # timm's own for tests: 0.4 million parameters


def published(name: str) -> bytes:
    """As timm publishes it: a state dict with classifier, whose BatchNorms have seen something."""
    torch.manual_seed(7)
    network = timm.create_model(name, pretrained=False).train()
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))
    return save(network.state_dict())


class Hub:
    """What huggingface_hub needs of a hub: HEAD and GET of {repository}/resolve/{revision}/{file}."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.spoil, self.cut, self.etag, self.asked = files, False, 0, "", []
        hub_ = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub_.answer(self, body=False)

            def do_GET(self) -> None:
                hub_.answer(self, body=True)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        filename = request.path.rsplit("/", 1)[1]
        self.asked.append((request.command, filename))
        if filename not in self.files:
            request.send_response(404)
            request.send_header("X-Error-Code", "EntryNotFound")
            request.send_header("X-Repo-Commit", "c" * 40)
            request.end_headers()
            return
        content = self.files[filename]
        request.send_response(200)
        request.send_header("X-Repo-Commit", "c" * 40)
        request.send_header("X-Linked-Etag", f'"{self.etag or hashlib.sha256(content).hexdigest()}"')
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            content = content[:-1] + bytes([content[-1] ^ 1]) if self.spoil else content
            request.wfile.write(content[: len(content) - self.cut])

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def weights() -> bytes:
    return published(NAME)


@pytest.fixture
def served(weights: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with the weights, where every call of this process goes; nothing waits between attempts."""
    made = Hub({"model.safetensors": weights})
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(hub.constants, "ENDPOINT", made.address)
    monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(downloads, "time", SimpleNamespace(sleep=lambda _: None))
    fetch = downloads.weights_of
    monkeypatch.setattr(downloads, "weights_of", lambda name, ways: fetch(name, ways, tmp_path / "cache", made.address))
    yield made
    made.stop()


def left_in(folder: Path) -> list[Path]:
    """Content of the cache: neither the locks nor the notes about which commit is which."""
    return [path for place in ("blobs", "snapshots") for path in folder.rglob(f"{place}/**/*") if path.is_file()]


def message_of(name: str = NAME) -> str:
    with pytest.raises(UserError) as caught:
        backbones.create(name, "pretrained", 64)
    message = str(caught.value)
    for way_out in ("backbone=tf_efficientnet_lite0", "weights=path/to/state_dict.pth", "weights=none"):
        assert way_out in message
    return message


def assert_filled(backbone: torch.nn.Module) -> None:
    torch.manual_seed(7)
    original = timm.create_model(NAME, pretrained=False).train()
    with torch.no_grad():
        original(torch.randn(4, 3, 64, 64))
    expected = original.state_dict()
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_weights_arrive_bit_for_bit_once_and_need_no_server_afterwards(served: Hub, capsys: pytest.CaptureFixture) -> None:
    assert_filled(backbones.create(NAME, "pretrained", 64))
    assert served.asked.count(("GET", "model.safetensors")) == 1
    size = len(served.files["model.safetensors"]) / 1e6
    assert f"weights of {NAME}: fetching {served.address}" in (said := capsys.readouterr().out)
    assert f"{size:.1f} MB, once" in said
    before = list(served.asked)
    assert_filled(backbones.create(NAME, "pretrained", 64))
    assert served.asked == before
    served.stop()
    assert_filled(backbones.create(NAME, "pretrained", 64))


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_shown_on_a_terminal_alone(
    served: Hub, terminal: bool, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    backbones.create(NAME, "pretrained", 64)
    assert ("100%" in capsys.readouterr().err) == terminal


def test_the_random_state_after_it_does_not_depend_on_the_check(served: Hub) -> None:
    backbones.create(NAME, "pretrained", 64)
    drawn = []
    for build in (lambda: backbones.create(NAME, "pretrained", 64), lambda: backbones.bare(NAME, 64)):
        torch.manual_seed(3)
        build()
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_the_older_format_is_taken_where_the_newer_is_missing(served: Hub, tmp_path: Path, weights: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(weights)
    torch.save(timm.models.load_state_dict(str(tmp_path / "w.safetensors")), tmp_path / "w.bin")
    served.files = {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()}
    assert_filled(backbones.create(NAME, "pretrained", 64))


def test_a_wrong_hash_is_refused_before_anything_reads_it(served: Hub, tmp_path: Path) -> None:
    served.spoil = True
    assert "wrong hash" in message_of()
    assert left_in(tmp_path / "cache") == []
    served.spoil = False
    assert_filled(backbones.create(NAME, "pretrained", 64))


def test_a_cached_file_that_was_damaged_is_fetched_again(served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    backbones.create(NAME, "pretrained", 64)
    (blob,) = [path for path in left_in(tmp_path / "cache") if path.parent.name == "blobs"]
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert_filled(backbones.create(NAME, "pretrained", 64))
    assert "has another hash than when it was fetched" in capsys.readouterr().out
    assert served.asked.count(("GET", "model.safetensors")) == 2


@pytest.mark.parametrize("chunk", [2**16, 2**23])  # below and above the size: the client counts its attempts in the second
def test_a_truncated_body(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(hub.constants, "DOWNLOAD_CHUNK_SIZE", chunk)
    served.cut = 1000
    assert "truncated" in message_of()
    assert left_in(tmp_path / "cache") == []
    assert served.asked.count(("GET", "model.safetensors")) <= 6
    served.cut = 0
    assert_filled(backbones.create(NAME, "pretrained", 64))


def test_no_server(served: Hub) -> None:
    served.stop()
    message = message_of()
    assert f"no pretrained weights of {NAME}: no server: {served.address}" in message


def test_no_such_file(served: Hub) -> None:
    served.files = {}
    assert "not found: timm/test_resnet.r160_in1k holds none of model.safetensors, pytorch_model.bin" in message_of()


def test_a_server_that_declares_no_sha256(served: Hub, tmp_path: Path) -> None:
    served.etag = "f" * 40  # as git counts
    assert "declares no SHA-256" in message_of()
    assert left_in(tmp_path / "cache") == []


def test_offline_by_the_users_wish(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    hub.close_session()  # a session keeps the mode it was made in
    assert "HF_HUB_OFFLINE" in message_of()
    hub.close_session()
    assert served.asked == []


def test_a_full_disk(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(hub, "hf_hub_download", full)
        assert "the disk is full" in message_of()
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "the disk is full: " in message_of()


@pytest.mark.parametrize("other", ["test_efficientnet", "test_convnext", "resnet18"])
def test_weights_of_another_architecture(served: Hub, other: str) -> None:
    served.files = {"model.safetensors": published(other)}
    assert f"does not fit {NAME}" in message_of()


def test_bytes_that_are_no_weights(served: Hub) -> None:
    served.files = {"model.safetensors": b"<!DOCTYPE html><html></html>"}
    assert f"does not fit {NAME}" in message_of()


def test_code_in_published_weights_is_not_executed(served: Hub, tmp_path: Path) -> None:
    torch.save({"conv1.weight": Executes(tmp_path / "executed")}, tmp_path / "w.bin")
    served.files = {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()}
    assert f"does not fit {NAME}" in message_of()
    assert not (tmp_path / "executed").exists()


def test_a_model_without_published_weights(served: Hub) -> None:
    assert "no pretrained weights of test_maxvit: timm knows none" in message_of("test_maxvit")
    assert served.asked == []


class TestPlainAddress:
    """Models on no hub: the hash stands in the file's name."""

    @pytest.fixture
    def at(self, served: Hub, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / "w.safetensors").write_bytes(weights)
        torch.save(timm.models.load_state_dict(str(tmp_path / "w.safetensors")), tmp_path / "w.pth")
        content = (tmp_path / "w.pth").read_bytes()

        def name(hashed: str = hashlib.sha256(content).hexdigest()[:8]) -> str:
            filename = f"model{hashed and '-'}{hashed}.pth"
            served.files = {filename: content}
            config = SimpleNamespace(hf_hub_id=None, url=f"{served.address}/{filename}")
            monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: config)
            return filename

        return name

    def test_it_arrives_once(self, served: Hub, at) -> None:
        filename = at()
        assert_filled(backbones.create(NAME, "pretrained", 64))
        served.stop()
        assert_filled(backbones.create(NAME, "pretrained", 64))
        assert served.asked == [("GET", filename)]

    @pytest.mark.parametrize("terminal", [False, True])
    def test_progress_is_shown_on_a_terminal_alone(
        self, at, terminal: bool, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        at()
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        backbones.create(NAME, "pretrained", 64)
        assert ("100%" in capsys.readouterr().err) == terminal

    def test_a_wrong_hash(self, served: Hub, at, tmp_path: Path) -> None:
        at("01234567")
        assert "wrong hash" in message_of()
        assert list((tmp_path / "cache").iterdir()) == []

    def test_a_truncated_body(self, served: Hub, at, tmp_path: Path) -> None:
        at()
        served.cut = 1000
        assert "truncated" in message_of()
        assert list((tmp_path / "cache").iterdir()) == []

    def test_a_name_without_hash(self, served: Hub, at) -> None:
        at("")
        assert "holds no hash" in message_of()
        assert served.asked == []

    def test_not_found_and_no_server(self, served: Hub, at) -> None:
        at()
        served.files = {}
        assert "not found" in message_of()
        served.stop()
        assert "no server" in message_of()
