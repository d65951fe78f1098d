"""Two processes on the CPU learn what one does: same loss, same gradients, same statistics, up to rounding."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import distributed, multiprocessing, nn

from stages.lib import inference, mixing, model, team, training
from stages.lib.errors import UserError

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)

CPU = torch.device("cpu")
N_IMAGES = 9


class Small(nn.Module):
    """Both kinds of BatchNorm, with and without an activation of its own."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, bias=False), BatchNormAct2d(8, momentum=0.3)),
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.body(pictures).mean((2, 3))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The last batch has one picture: the second process gets none of it. Known labels are few and uneven."""
    generator = torch.Generator().manual_seed(4)
    pictures = 3 + torch.randn(N_IMAGES, 3, 16, 16, generator=generator)
    targets = torch.randint(0, 2, (N_IMAGES, 2), generator=generator).float()
    targets[[1, 3, 5]] = torch.nan
    targets[0, 1] = torch.nan
    return [(pictures[:5], targets[:5]), (pictures[5:8], targets[5:8]), (pictures[8:], targets[8:])]


def trained(members: team.Team) -> dict[str, Any]:
    torch.manual_seed(members.rank)  # the first process's network is the one that counts
    network = model.Tagger(Small(), 2, 8, (0.0, 0.0))
    recipe = training.Recipe(0.01, 1.0, 0.0, 0.0, 2, 9, ema=0.5)
    parts = ((members.part(pictures), members.part(targets)) for pictures, targets in batches())
    own = list(mixing.mixed(parts, "none", 1.0, 0))

    def evaluate(trained: model.Tagger) -> dict[str, float]:
        rows = np.arange(N_IMAGES)
        pictures = torch.cat([pictures for pictures, _ in batches()])
        with torch.inference_mode():
            logits = trained.eval()(pictures[members.part(rows)]).numpy()
        return {"val_loss": float(np.square(members.put_together(logits) - rows[:, None]).mean()), "val_ap": 0.5}

    fit = training.fit(
        network, lambda _: own, len(own), evaluate, np.array([0.5, 3.0]), recipe, CPU, lambda _: None, int, members=members
    )
    return {"iterations": fit.iterations, "epochs": fit.epochs, "state": fit.state}


def one_of_two(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    place = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    with team.opened(CPU) as (members, _):
        print(f"process {rank}")
        torch.save(trained(members), Path(folder) / f"{rank}.pt")
        uneven = members.put_together(np.arange(5.0)[members.part(np.arange(5))][:, None])
        none_for_one = members.put_together(np.ones((1, 3)) if rank == 0 else np.empty((0, 0)))
        assert uneven.flatten().tolist() == [0, 1, 2, 3, 4]
        assert none_for_one.shape == (1, 3)
    assert not distributed.is_initialized()


def test_two_processes_learn_what_one_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(one_of_two, (port, str(tmp_path)), nprocs=2)
    assert capfd.readouterr().out == "process 0\n"
    expected = trained(team.ALONE)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        for kind in ("iterations", "epochs"):
            for row, wanted in zip(found[kind], expected[kind], strict=True):
                assert row == pytest.approx(wanted, rel=1e-4)
        for name, tensor in expected["state"].items():  # Adam divides by the gradient's size: small ones show rounding
            torch.testing.assert_close(found["state"][name], tensor, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_one_process_normalises_as_pytorch_does(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "all_reduce", lambda tensor: None)
    torch.manual_seed(0)
    expected, found = kind(4, momentum=0.2), kind(4, momentum=0.2)
    found.__class__ = team.SharedBatchNorm
    for turn in range(2):
        given = 50 + torch.randn(6, 4, 5, 5)  # far from zero, where sums of squares lose digits
        one, other = given.clone().requires_grad_(), given.clone().requires_grad_()
        (expected(one) ** 3).sum().backward()
        (found(other) ** 3).sum().backward()
        torch.testing.assert_close(other.grad, one.grad, atol=1e-3, rtol=1e-3)
        assert int(found.num_batches_tracked) == turn + 1
    torch.testing.assert_close(dict(found.state_dict()), dict(expected.state_dict()))
    torch.testing.assert_close(found.eval()(given), expected.eval()(given))


def test_a_process_alone_changes_nothing() -> None:
    network = nn.BatchNorm2d(3)
    rows = np.arange(4)
    assert team.ALONE.joined(network) is network
    assert type(network) is nn.BatchNorm2d
    assert team.ALONE.part(rows) is not None
    assert team.ALONE.part(rows).tolist() == [0, 1, 2, 3]
    assert team.ALONE.put_together(rows) is rows


def test_a_launcher_that_says_half_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(UserError, match="WORLD_SIZE is set"), team.opened(inference.device_of("cpu")):
        pass
