"""A model file at work with PyTorch: pictures in, the logits of every member out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from stages.lib import fusing, inference, model_file, shards
from stages.lib.errors import UserError
from stages.lib.portable import BATCH_ON_CPU, BATCH_ON_GPU
from stages.lib.preprocessing import to_input


class Engine:
    """The members of a model, BatchNorm folded, on the device; float32 but for `bf16` on a GPU.

    With `mirrored` (test-time augmentation) the logits of a picture and of its mirror image are averaged. With `lanes`
    above 0 that many batches may run at once: on a CPU each on a thread of its own, which waits for no other.
    """

    def __init__(self, path: Path, device: str, bf16: bool, mirrored: bool, lanes: int = 0) -> None:
        self.saved = model_file.load(path)
        self.attributes, self.preprocessing = self.saved.attributes, self.saved.preprocessing
        self.device = _own_gpu(inference.device_of(device))
        self.bf16, self.mirrored = bf16 and self.device.type == "cuda", mirrored
        side = self.preprocessing.resolution
        self.networks = [fusing.at_work(network, side, self.device) for network in self.saved.networks()]
        self.n_members = len(self.networks)
        self.batch_size = BATCH_ON_CPU if self.device.type == "cpu" else BATCH_ON_GPU
        self.lanes = lanes if self.device.type == "cpu" else 1
        if lanes and self.device.type == "cpu":
            torch.set_num_threads(1)
        self.precision = f"PyTorch {self.device.type} {'bf16' if self.bf16 else 'float32'}"

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures (n, side, side, 3) uint8 -> logits (n_members, n, n_attributes), float64."""
        autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)
        with torch.inference_mode():
            batch = to_input(pictures, self.preprocessing, self.device)
        with torch.inference_mode(), autocast:
            found = [self._of_one(network, batch).double().cpu().numpy() for network in self.networks]
        return np.stack(found)

    def _of_one(self, network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        logits = network(batch).float()
        return (logits + network(batch.flip(-1)).float()) / 2 if self.mirrored else logits


def _own_gpu(device: torch.device) -> torch.device:
    """Under torchrun every process of a machine has a GPU of its own."""
    local = shards.local_rank()
    if device.type != "cuda" or local is None:
        return device
    if local >= torch.cuda.device_count():
        raise UserError(f"LOCAL_RANK is {local}, but there are {torch.cuda.device_count()} GPUs; start fewer processes per node")
    return torch.device("cuda", local)
