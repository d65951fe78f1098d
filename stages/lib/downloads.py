"""Published weights of timm models: fetched once, checked by hash before anything reads them, then taken from the cache."""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import huggingface_hub as hub
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import tqdm

from stages.lib.errors import UserError, first_line

FILENAMES = ("model.safetensors", "pytorch_model.bin")  # in timm's order of preference
WAIT = 10.0  # seconds for an answer of the server, which is asked twice
RESTARTS = 3  # of one transfer from its first byte
SHA256 = re.compile(r"[0-9a-f]{64}")
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")  # as torch.hub names files: resnet18-5c106cde.pth


class Refused(Exception):
    """Why the weights can't be had, in one clause."""


class Bar(tqdm):  # type: ignore[misc]  # huggingface_hub's, which shows on a terminal only
    """Progress; it also ends what the client would repeat for ever, where a server cuts off every answer."""

    restarts = 0

    def update(self, n: float | None = 1) -> bool | None:
        if n is not None and n < 0:
            self.restarts += 1
            if self.restarts > RESTARTS:
                raise Refused(f"truncated: the server broke off {self.restarts} times and can't resume")
        return super().update(n)


def weights_of(name: str, ways_out: str, cache: Path | None = None, endpoint: str | None = None) -> Path:
    """The file with the weights of a timm model, from the cache or fetched, with the hash that its publisher declares.

    `cache` and `endpoint` are for tests: by default huggingface_hub and torch.hub say where (HF_HOME, HF_ENDPOINT,
    TORCH_HOME, proxies). Raises UserError that says what is wrong and ends with `ways_out`.
    """
    config = timm.get_pretrained_cfg(name)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would bury the one message that counts
    try:
        if config and config.hf_hub_id:
            return _of_hub(name, config.hf_hub_id, config.hf_hub_filename, cache, endpoint)
        if config and config.url:
            return _of_url(name, str(config.url), cache or Path(torch.hub.get_dir()) / "checkpoints")
        raise Refused("timm knows none")
    except (Refused, OSError) as error:
        why = str(error) if isinstance(error, Refused) else first_line(error)
        raise UserError(f"weights: no pretrained weights of {name}: {why}. {ways_out}") from None


def _of_hub(name: str, repository: str, filename: str | None, cache: Path | None, endpoint: str | None) -> Path:
    repository, _, revision = repository.partition("@")
    place: dict[str, Any] = {"repo_id": repository, "revision": revision or "main"}
    filenames = (filename,) if filename else FILENAMES
    for candidate in filenames:
        found = hub.try_to_load_from_cache(filename=candidate, cache_dir=cache, **place)
        if isinstance(found, str):
            if _is_whole(Path(found)):
                return Path(found)
            print(f"weights of {name}: {found} has another hash than when it was fetched; fetching it again", flush=True)
            _remove(Path(found))
    for candidate in filenames:
        url = hub.hf_hub_url(filename=candidate, endpoint=endpoint, **place)
        try:
            about = _asked(url, endpoint)
        except EntryNotFoundError:
            continue
        if not SHA256.fullmatch(about.etag or ""):
            raise Refused(f"{url} declares no SHA-256, so that what comes can't be checked")
        _announce(name, url, about.size, Path(cache or hub.constants.HF_HUB_CACHE))
        with _explained(url):
            got = Path(
                hub.hf_hub_download(
                    filename=candidate, cache_dir=cache, endpoint=endpoint, etag_timeout=WAIT, tqdm_class=Bar, **place
                )
            )
        if _digest(got) != about.etag:
            wrong = _digest(got)
            _remove(got)
            raise Refused(f"wrong hash: {url} declares {about.etag[:12]}..., what came has {wrong[:12]}...; it was deleted")
        return got
    raise Refused(f"not found: {repository} holds none of {', '.join(filenames)}")


def _asked(url: str, endpoint: str | None) -> Any:
    """Hash and size that the server declares; asked once more where it does not answer."""
    for last in (False, True):
        try:
            return hub.get_hf_file_metadata(url, timeout=WAIT, endpoint=endpoint)
        except EntryNotFoundError:
            raise
        except OfflineModeIsEnabled:
            raise Refused("not in the cache, and HF_HUB_OFFLINE forbids to fetch them") from None
        except HfHubHTTPError as error:
            raise Refused(_answered(url, error.response.status_code)) from None
        except Exception as error:  # the client's, of the HTTP library that it is built on, and the sockets'
            if last:
                raise Refused(f"no server: {url} does not answer ({first_line(error)})") from None
        time.sleep(1)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Errors of a transfer that had begun well."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:  # as above
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise Refused("the disk is full; HF_HOME or TORCH_HOME moves the cache") from None
        if isinstance(error, HfHubHTTPError):
            raise Refused(_answered(url, error.response.status_code)) from None
        if isinstance(error, HTTPError):
            raise Refused(_answered(url, error.code)) from None
        raise Refused(f"truncated: the transfer of {url} broke off ({first_line(error)})") from None


def _answered(url: str, code: int) -> str:
    kind = {401: "not found or not public", 403: "not allowed", 404: "not found"}.get(code, "server in trouble")
    return f"{kind}: {url} answers {code}"


def _of_url(name: str, url: str, folder: Path) -> Path:
    """For the models that are on no hub: the hash stands in the name of the file."""
    path = folder / url.rsplit("/", 1)[1]
    declared = HASH_IN_NAME.search(path.name)
    if not declared:
        raise Refused(f"the name of {url} holds no hash, so that what comes can't be checked")
    if path.is_file():
        if _digest(path).startswith(declared[1]):
            return path
        print(f"weights of {name}: {path} has another hash than its name says; fetching it again", flush=True)
        path.unlink()
    _announce(name, url, None, folder)
    folder.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(WAIT)  # torch.hub sets none
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=declared[1], progress=sys.stderr.isatty())
    except RuntimeError:
        raise Refused(f"wrong hash: what {url} sent is truncated or another file; it was deleted") from None
    except ConnectionError as error:
        raise Refused(f"no server: {url} does not answer ({first_line(error)})") from None
    except OSError as error:
        if isinstance(getattr(error, "reason", None), OSError):  # no connection was made
            raise Refused(f"no server: {url} does not answer ({first_line(error)})") from None
        with _explained(url):
            raise
    finally:
        socket.setdefaulttimeout(before)
    return path


def _announce(name: str, url: str, size: int | None, folder: Path) -> None:
    print(f"weights of {name}: fetching {url}{f', {size / 1e6:.1f} MB' if size else ''}, once", flush=True)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if size and free < size:
        raise Refused(
            f"the disk is full: {size / 1e6:.0f} MB wanted, {free / 1e6:.0f} MB free in {folder}; HF_HOME moves the cache"
        )


def _is_whole(path: Path) -> bool:
    """Whether a file of the cache has the hash it is stored under (the link's target is named by it).

    Where the file system has no links, the cache does not tell, and the check after the transfer has to do.
    """
    stored_as = path.readlink().name if path.is_symlink() else ""
    return not SHA256.fullmatch(stored_as) or _digest(path) == stored_as


def _remove(path: Path) -> None:
    """The file and all links that lead to it, so that the next attempt starts afresh."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
