"""Tensors and plain values in a file that loads with `weights_only=True`; equal contents are equal bytes."""

from __future__ import annotations

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


def write(path: Path, content: dict[str, Any]) -> None:
    """Replace the file at `path`. Raises OSError for a full disk and the like."""
    # Given a path, torch.save would write its name into the archive: equal contents would be other bytes.
    with replacing(path) as temporary, open(temporary, "wb") as opened:
        told = _Told(opened)
        try:
            torch.save(content, told)  # type: ignore[arg-type]
        except RuntimeError:
            raise told.error or RuntimeError(f"{path} can't be written") from None
