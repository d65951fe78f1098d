"""Tensors and plain values in a file that loads with `weights_only=True`; equal contents are equal bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from stages.lib.files import replacing


class _Told:
    """A file that remembers why a write failed: torch.save tells only that something was wrong with a position."""

    def __init__(self, opened: IO[bytes]) -> None:
        self.opened = opened
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self.opened.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.opened.flush()


def read(path: Path) -> Any:
    """The content of a file of `write`; nothing in it is executed. Errors of every type for a file that is none.

    torch.save packs nothing, so what is packed is somebody else's, and may be of any size once it is unpacked.
    """
    with zipfile.ZipFile(path) as archive:
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise ValueError("its archive is packed")
    return torch.load(path, map_location="cpu", weights_only=True)


def flaw(tensor: torch.Tensor) -> str:
    """Why a tensor of a file that anybody may have written is no array of real numbers that lie in the file, or nothing.

    Sparse, quantized and meta tensors lack the operators that networks need; one with a stride of 0 claims any size.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return "is no plain array"
    if tensor.is_complex():
        return "holds complex numbers"
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        return f"claims the shape {tuple(tensor.shape)}, for which the file holds too few numbers"
    return ""


def write(path: Path, content: dict[str, Any]) -> None:
    """Replace the file at `path`. Raises OSError for a full disk and the like."""
    # Given a path, torch.save would write its name into the archive: equal contents would be other bytes.
    with replacing(path) as temporary, open(temporary, "wb") as opened:
        told = _Told(opened)
        try:
            torch.save(content, told)  # type: ignore[arg-type]
        except RuntimeError:
            raise told.error or RuntimeError(f"{path} can't be written") from None
