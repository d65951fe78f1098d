"""model.pth, which holds all that prediction needs: plain values and tensors, read without executing anything."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.lib import tensors
from stages.lib.blending import Blended
from stages.lib.errors import UserError, first_line
from stages.lib.faults import attribute_names, shown
from stages.lib.model import Network, Tagger, shapes, untrained
from stages.lib.params import MOST_IN_ALL, MOST_NETWORKS
from stages.lib.preprocessing import Preprocessing, parsed

FORMAT = "image-attribute-tagger 1"
MOST_MEMBERS = 100  # as many as `folds` may be


@dataclass
class Member:
    """What was trained on one split: weights, and what training knew. `pos_weight` has one entry per attribute.

    `others` holds, of each further network of the split (train.networks), the weights that it has otherwise than the first;
    the logits of all are averaged. With a `share` above 0 a regression has that share of them (blending). `untouched` holds
    its weights as those of a linear head, and what its backbone has otherwise than the networks': the trained stages before
    training.
    """

    state: dict[str, torch.Tensor]
    pos_weight: list[float]
    epoch: int  # the kept epoch of the first network, counted from 1, for people
    val_loss: float
    share: float = 0.0
    untouched: dict[str, torch.Tensor] = field(default_factory=dict)
    others: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def states(self) -> list[dict[str, torch.Tensor]]:
        """All that it holds, by name of the tensor."""
        return [self.state, self.untouched, *self.others]


@dataclass
class Saved:
    """The content of model.pth: one member, or one per fold."""

    backbone: str
    attributes: list[str]
    hidden: int
    dropout: list[float]
    preprocessing: Preprocessing
    settings: dict[str, Any]  # what train was run with, for people
    members: list[Member]

    def n_networks(self) -> int:
        """All that were trained; the regression beside them is not counted."""
        return sum(1 + len(member.others) for member in self.members)

    def networks(self) -> list[Network]:
        """The members as networks in eval mode: `Blended` where several speak for one. UserError where weights do not fit."""
        return [self._network(member) for member in self.members]

    def _network(self, member: Member) -> Network:
        tuned = [self._tagger(member.state | own, self.hidden) for own in ({}, *member.others)]
        differs = {name for own in member.others for name in own}
        untouched = None
        if member.share:
            kept = {name: tensor for name, tensor in member.state.items() if name.startswith("backbone.")}
            untouched = self._tagger(kept | member.untouched, 0)
            differs |= set(member.untouched)
        elif not differs:  # only one, or all kept the start that they have in common
            return tuned[0]
        blended = Blended(tuned, untouched, member.share)
        # From here on they differ; below it one can do the work of all (trunk.shared).
        first = min(tuned[0].level(name) for name in differs)
        for part in blended.parts():
            part.first_trained = first  # type: ignore[assignment]
        return blended.eval()

    def _tagger(self, state: dict[str, torch.Tensor], hidden: int) -> Tagger:
        kind: tuple[Any, ...] = (self.backbone, self.preprocessing.resolution, len(self.attributes), hidden, *self.dropout)
        expected, found = shapes(*kind), {name: tensor.shape for name, tensor in state.items()}
        if differs := [name for name in {**expected, **found} if expected.get(name) != found.get(name)]:
            some = f"{shown(differs[0])}{f' and {len(differs) - 1} more' * (len(differs) > 1)}"
            raise UserError(f"the model's weights do not fit {self.backbone}: {some}; run 'dvc repro --force train'")
        network = untrained(*kind)
        network.load_state_dict(state)
        return network.eval().to(memory_format=torch.channels_last)

    def log_pos_weight(self, index: int) -> np.ndarray:
        """log(pos_weight) of a member, shape (n_attributes,): what its logits are shifted by."""
        return np.log(np.asarray(self.members[index].pos_weight))


def save(path: Path, saved: Saved) -> None:
    """Write model.pth: plain values and tensors only, so that it loads with `weights_only=True`."""
    for member in saved.members:
        # pickle writes a text once for every object that holds it: with one object per text, equal models are equal bytes.
        member.state = {sys.intern(name): tensor for name, tensor in member.state.items()}
        member.untouched = {sys.intern(name): tensor for name, tensor in member.untouched.items()}
        member.others = [{sys.intern(name): tensor for name, tensor in own.items()} for own in member.others]
    for part in ("state", "untouched"):  # what several members have alike, as the frozen parts, is stored once
        known: dict[str, torch.Tensor] = {}
        for state in (getattr(member, part) for member in saved.members):
            for name, tensor in state.items():
                if torch.equal(tensor, known.setdefault(name, tensor)):
                    state[name] = known[name]
    content = {item.name: getattr(saved, item.name) for item in fields(saved)}
    content |= {"format": FORMAT, "preprocessing": asdict(saved.preprocessing)}
    content["members"] = [{item.name: getattr(m, item.name) for item in fields(m)} for m in saved.members]
    tensors.write(path, content)


def load(path: Path) -> Saved:
    """Read model.pth without executing anything in it. Raises UserError for anything that is not one."""
    if not path.is_file():
        raise UserError(f"model {path} is missing; the train stage writes it: run 'dvc repro train'")
    try:
        content = tensors.read(path)
    except Exception as error:  # damaged bytes lead the unpickler to errors of every type
        raise UserError(
            f"model {path} is damaged or no model file ({first_line(error)}); run 'dvc repro --force train'"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"model {path} is not of this project's format ('{FORMAT}')")
    try:
        content = {item.name: content[item.name] for item in fields(Saved)}
        content["preprocessing"] = parsed(content["preprocessing"])
        content["members"] = [Member(**member) for member in content["members"]]
        return _checked(Saved(**content))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"model {path} lacks a part: {error}; run 'dvc repro --force train'") from None
    except (ValueError, OverflowError, RuntimeError) as error:  # the last of tensors where numbers belong
        raise UserError(f"model {path} can't be used: {first_line(error)}; run 'dvc repro --force train'") from None


def _checked(saved: Saved) -> Saved:
    """ValueError for contents of the right names that are of the wrong kind; whether weights fit is seen in `networks`."""
    attribute_names(saved.attributes)
    if not isinstance(saved.backbone, str) or not isinstance(saved.hidden, int):
        raise ValueError("backbone is no name, or hidden no whole number")
    if (
        not isinstance(saved.dropout, list)
        or len(saved.dropout) != 2
        or not all(0 <= float(share) < 1 for share in saved.dropout)
    ):
        raise ValueError("dropout is no pair of shares")
    if not 1 <= len(saved.members) <= MOST_MEMBERS:
        raise ValueError(f"it has {len(saved.members)} members, not 1 to {MOST_MEMBERS}")
    for member in saved.members:
        if not isinstance(member.others, list) or len(member.others) >= MOST_NETWORKS:
            raise ValueError(f"a member's other networks are no list, or {MOST_NETWORKS} and more")
    # One takes the memory of a whole network, however small the file.
    if saved.n_networks() > MOST_IN_ALL:
        raise ValueError(f"it has {saved.n_networks()} networks, more than {MOST_IN_ALL}")
    for member in saved.members:
        for state in member.states():
            if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
                raise ValueError("a member's state is no mapping of tensors")
            for name, tensor in state.items():
                if why := tensors.flaw(tensor):
                    raise ValueError(f"its tensor '{shown(name)}' {why}")
        # Before a network of this size is made.
        state = member.state
        if any(name not in state or own[name].shape != state[name].shape for own in member.others for name in own):
            raise ValueError("a member's other networks do not fit the first")
        last = [tensor for name, tensor in member.state.items() if name.startswith("head.") and name.endswith(".weight")][-1:]
        if not last or last[0].shape != (len(saved.attributes), saved.hidden or last[0].shape[-1]):
            raise ValueError("the head's weights do not fit the attributes and the hidden layer")
        if isinstance(member.share, bool) or not 0 <= float(member.share) < 1:
            raise ValueError("a member's share of the regression is not from 0 to 1")
        regression = member.untouched.get("head.1.weight")
        if member.share and (regression is None or regression.ndim != 2 or len(regression) != len(saved.attributes)):
            raise ValueError("the regression's weights do not fit the attributes")
        weights = np.asarray(member.pos_weight, dtype=float)
        if weights.shape != (len(saved.attributes),) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ValueError("pos_weight is no list of numbers above 0, one per attribute")
        if not all(torch.isfinite(tensor).all() for state in member.states() for tensor in state.values()):
            raise ValueError("it has weights that are no numbers")
    return saved
