"""Pictures in, logits out: in order, in batches, without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from stages.lib.errors import UserError
from stages.lib.pixels import Pictures
from stages.lib.preprocessing import Preprocessing, to_input

# Pictures at a time. On a CPU the memory of a first, larger batch costs more than it saves: 192 pictures by a fresh process took
# 4.2 s in batches of 64, 3.0 s in batches of 32, with 1.4 GB instead of 2.1; from the second round on they are alike.
BATCH = {"cpu": 32, "cuda": 64}


def device_of(choice: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; UserError where cuda is asked for and absent."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device: cuda is asked for, but PyTorch sees no GPU; use auto or cpu")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def precision(device: torch.device, bf16: bool) -> torch.autocast:
    """The context that a network runs forward in: float32, but for matrix products and convolutions in `bf16` on a GPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16 and device.type == "cuda")


def logits(
    network: nn.Module,
    store: Pictures,
    rows: Sequence[int] | np.ndarray,
    how: Preprocessing,
    device: torch.device,
) -> np.ndarray:
    """Logits of the pictures `rows` of `store`, shape (n_rows, n_attributes), float64."""
    network.eval()
    with torch.inference_mode():
        found = [network(batch).float().cpu().numpy() for batch in batches(store, rows, how, device)]
    return np.concatenate(found).astype(np.float64)


def batches(
    store: Pictures, rows: Sequence[int] | np.ndarray, how: Preprocessing, device: torch.device
) -> Iterator[torch.Tensor]:
    """What a network sees of the pictures `rows`, in order: (n, 3, resolution, resolution) on the device, n at most its BATCH."""
    size = BATCH[device.type]
    for start in range(0, len(rows), size):
        pictures = np.stack([store[row] for row in rows[start : start + size]])
        yield to_input(pictures, how, device)
