"""A training that is under way: after a kill the same command carries on behind the last whole epoch, with the same bits.

    <place>/run.json               what it belongs to: settings, data, code, versions
    <place>/features.safetensors   the frozen features
    <place>/fold-0.pth             per fold all that goes from one epoch to the next; once it is trained, its result alone
    <place>/fold-0-1.pth           the same of its second network, where it has several

Each file is whole or absent. A checkpoint of another training (DVC does not know of this folder, and leaves it where it is
when it goes from one experiment to the next) is set aside as <place>.other, over an earlier one there, and never used.

The state of random generators is not among what is kept: every epoch seeds its own by name (chance.py).
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from stages.lib import files, tensors
from stages.lib.errors import UserError, first_line
from stages.lib.team import ALONE, Team

OURS = re.compile(r"\.?(run|features|fold-\d+(-\d+)?)\.(\d+\.)?(json|safetensors|pth)")  # a number before: half written


class Stateful(Protocol):
    """A network, an optimizer, or whatever else goes on from epoch to epoch."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Fold:
    """The checkpoint of a fold's network, a file; without `path` nothing is kept. Of a team only the first process `writes`."""

    def __init__(self, path: Path | None = None, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    @property
    def begun(self) -> bool:
        """Whether there is something to carry on with."""
        return self.path is not None and self.path.is_file()

    def load(self, moving: Mapping[str, Stateful]) -> dict[str, Any]:
        """Bring `moving`, by name, to where it was when the file was written; {} where there is none.

        Returns the `tables` given then, "epochs" among them. UserError for a file that can't be read or does not fit; it is
        moved out of the way.
        """
        if self.path is None or not self.begun:
            return {}
        try:
            content = tensors.read(self.path)
            if not content["finished"]:
                for name, part in moving.items():
                    part.load_state_dict(content["moving"][name])
            tables = dict(content["tables"])
            done = len(tables["epochs"])
        except (OSError, MemoryError, torch.cuda.OutOfMemoryError):
            raise  # not the file's fault
        except Exception as error:  # damaged bytes lead the unpickler, and foreign states the networks, to errors of every type
            aside = self.path.with_name(f"{self.path.name}.damaged")
            os.replace(self.path, aside)
            why = f"can't be used ({first_line(error)}); it is now called {aside.name}"
            raise UserError(f"{self.path} {why}: the same command starts this network anew") from None
        print(f"  {self.path}: carrying on behind {done} epochs of an interrupted training", flush=True)
        return tables

    def save(self, moving: Mapping[str, Stateful], tables: Mapping[str, Any], finished: bool) -> None:
        """Write all that `load` needs. Once training is `finished` only the `tables` are kept."""
        if self.path is None or not self.writes:
            return
        states = {} if finished else {name: part.state_dict() for name, part in moving.items()}
        tensors.write(self.path, {"finished": finished, "moving": states, "tables": dict(tables)})


NOTHING_KEPT = Fold()


class Checkpoint:
    """The folder `place`, which belongs to one training."""

    def __init__(self, place: Path, writes: bool = True) -> None:
        self.place, self.writes = place, writes

    def fold(self, number: int, network: int = 0) -> Fold:
        return Fold(self.place / f"fold-{number}{f'-{network}' if network else ''}.pth", self.writes)

    def features(self, compute: Callable[[], np.ndarray], n_rows: int) -> np.ndarray:
        """The frozen features, shape (n_rows, n_features): those that are there, or else what `compute` gives."""
        path = self.place / "features.safetensors"
        if path.is_file():
            (found,) = files.read_arrays(path, "train", "features")
            if found.ndim == 2 and len(found) == n_rows:
                return found
        found = compute()
        files.write_arrays(path, features=found)
        return found


@contextmanager
def opened(place: Path, run: Mapping[str, Any], members: Team = ALONE) -> Iterator[Checkpoint]:
    """`held` by the first of `members`; the others read what it has found there."""
    if members.rank == 0:
        with held(place, run) as kept:
            members.wait()
            yield kept
    else:
        members.wait()
        yield Checkpoint(place, writes=False)


@contextmanager
def held(place: Path, run: Mapping[str, Any]) -> Iterator[Checkpoint]:
    """The checkpoint at `place` of the training that `run` describes, empty where it is of another; removed at the end.

    After an error it stays. UserError where another process trains there, or where the folder holds other files.
    """
    lock = _locked(place)
    try:
        before = _run_at(place)
        if before is None:
            _remove_ours(place)  # what a kill has left of the removal of a finished one
            if any(place.iterdir()):
                raise UserError(f"{place} is to hold the checkpoint, but has other files in it; choose another --checkpoint")
        elif differs := [key for key in {**run, **before} if before.get(key) != run.get(key)]:
            _set_aside(place, differs)
            os.close(lock)
            lock = _locked(place)
        files.write_json(place / "run.json", run, exact=True)
        yield Checkpoint(place)
        _remove_ours(place)
        if not any(place.iterdir()):
            place.rmdir()
    finally:
        os.close(lock)


def check_space(place: Path, network: torch.nn.Module, count: int) -> None:
    """UserError where the disk is too small for the checkpoints of `count` such networks and the model file.

    An old and a new checkpoint of the one at work are there for a moment.
    """
    whole = sum(tensor.nbytes for tensor in network.state_dict().values())
    trained = sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)
    at_work = 2 * whole + 2 * trained  # now and at its best; AdamW keeps two numbers per parameter
    files.check_space(place, 2 * at_work + 3 * count * whole, "training (checkpoints and model)")


def _locked(place: Path) -> int:
    """A descriptor of the folder, which keeps other processes out until it is closed, by a kill too."""
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"another process is training with {place}; wait for it, stop it, or choose another --checkpoint"
        ) from None
    except OSError:  # a file system without locks: then it is the user who must not start a training twice
        pass
    return descriptor


def _run_at(place: Path) -> dict[str, Any] | None:
    if not (place / "run.json").is_file():
        return None
    try:
        return files.read_json(place / "run.json", "train")
    except UserError:
        return {}  # damaged: of no training that could be told


def _set_aside(place: Path, differs: list[str]) -> None:
    aside = place.with_name(f"{place.name}.other")
    if aside.is_dir():
        _remove_ours(aside)
        aside.rmdir()
    os.replace(place, aside)
    named = ", ".join(differs[:5]) + (f" and {len(differs) - 5} more" if len(differs) > 5 else "")
    print(
        f"{place} is of a training with other {named}: set aside as {aside}, and not used. To carry on with that one,\n"
        "  restore what differs and give the folder its old name",
        flush=True,
    )


def _remove_ours(place: Path) -> None:
    for path in place.iterdir():
        if OURS.fullmatch(path.name.removesuffix(".damaged")):
            path.unlink(missing_ok=True)
