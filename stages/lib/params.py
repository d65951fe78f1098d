"""params.yaml -> the settings one stage reads, as a frozen object, checked.

The whole file is checked at the door of every stage that runs, so that a slip in a late stage's section stops
the first one; but a stage gets only the keys that it names, which are those that dvc.yaml declares for it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from stages.lib.errors import UserError

FREEZE_LEVELS = ("none", "layer1", "layer2", "layer3", "layer4", "all")
STARTS = ("random", "regression")  # of the head
MIXES = ("none", "mixup", "cutmix")
BRIEFLY = reprlib.Repr()  # what aliases of YAML nest in each other may be longer, written out, than any memory
BRIEFLY.maxstring, BRIEFLY.maxother, BRIEFLY.maxlevel = 100, 100, 2
MOST_NETWORKS = 20  # of one split: a slip of the keys should not train for days
MOST_IN_ALL = 200  # networks of all folds
GOALS = ("f1", "precision", "recall", "fixed")  # of a threshold


def setting(**limits: Any) -> Any:
    """A dataclass field with limits: `at_least`, `at_most`, `above`, `below` or `one_of`; `or_word` is valid besides."""
    return field(metadata=limits)


@dataclass(frozen=True, kw_only=True)
class Data:
    images: str
    labels: str


@dataclass(frozen=True, kw_only=True)
class Validate:
    max_rejected: float = setting(at_least=0, at_most=1)
    side: int = setting(at_least=32, at_most=2048)
    fit: str = setting(one_of=("crop", "pad", "squash"))
    max_megapixels: float = setting(above=0)
    max_aspect: float = setting(at_least=1)
    duplicate_distance: int = setting(at_least=0, at_most=64)


@dataclass(frozen=True, kw_only=True)
class Stats:
    val: float = setting(above=0, below=1)
    test: float = setting(above=0, below=1)
    pos_weight: str = setting(one_of=("balanced", "sqrt", "none"))
    pos_weight_min: float = setting(above=0)
    pos_weight_max: float = setting(above=0)


@dataclass(frozen=True, kw_only=True)
class Train:
    resolution: int = setting(at_least=32, at_most=1024)
    test_resolution: int = setting(at_least=32, at_most=1024)
    center_crop: float = setting(above=0, at_most=1)
    batch_size: int = setting(at_least=2)
    hidden: int = setting(at_least=0)
    head_start: str = setting(one_of=STARTS)
    blend: float | str = setting(or_word="auto", at_least=0, below=1)
    ema: float = setting(at_least=0, below=1)
    networks: int = setting(at_least=1, at_most=MOST_NETWORKS)
    views: int = setting(at_least=0)
    lr_decay: float = setting(above=0, at_most=1)
    warmup: float = setting(at_least=0, below=1)
    patience: int = setting(at_least=1)
    device: str = setting(one_of=("auto", "cpu", "cuda"))
    workers: int | str = setting(or_word="auto", at_least=0)
    processes: int = setting(at_least=1)
    bf16: bool = setting()


@dataclass(frozen=True, kw_only=True)
class Augment:
    crop_scale: tuple[float, float] = setting(above=0, at_most=1)
    horizontal_flip: float = setting(at_least=0, at_most=1)
    vertical_flip: float = setting(at_least=0, at_most=1)
    rotation: float = setting(at_least=0, at_most=180)
    brightness: float = setting(at_least=0, at_most=1)
    contrast: float = setting(at_least=0, at_most=1)
    saturation: float = setting(at_least=0, at_most=1)
    hue: float = setting(at_least=0, at_most=0.5)
    grayscale: float = setting(at_least=0, at_most=1)
    erasing: float = setting(at_least=0, at_most=1)
    mix: str = setting(one_of=MIXES)
    mix_alpha: float = setting(above=0)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    threshold: str = setting(one_of=GOALS)
    minimum: float = setting(above=0, at_most=1)
    fixed_threshold: float = setting(above=0, below=1)


@dataclass(frozen=True, kw_only=True)
class Predict:
    images: str
    batch_size: int | str = setting(or_word="auto", at_least=1)
    workers: int = setting(at_least=0)
    tta: bool = setting()
    bf16: bool = setting()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting there is; params.yaml holds all of them, and nothing else."""

    seed: int = setting(at_least=0, at_most=2**31 - 1)
    folds: int = setting(at_least=1, at_most=100)
    backbone: str
    weights: str
    freeze: str = setting(one_of=FREEZE_LEVELS)
    dropout: tuple[float, float] = setting(at_least=0, below=1)
    lr: float = setting(above=0)
    weight_decay: float = setting(at_least=0)
    epochs: int = setting(at_least=1)
    data: Data
    validate: Validate
    stats: Stats
    train: Train
    augment: Augment
    evaluate: Evaluate
    predict: Predict


class Chosen:
    """The settings that one stage named; asking for another is a programming error."""

    def __init__(self, settings: Any, keys: tuple[str, ...]) -> None:
        sections: dict[str, list[str]] = {}
        for key in keys:
            name, _, rest = key.partition(".")
            sections.setdefault(name, []).append(rest)
        for name, within in sections.items():
            value = getattr(settings, name)
            self.__dict__[name] = Chosen(value, tuple(within)) if all(within) else value

    def __getattr__(self, key: str) -> Any:  # reached only for a key that was not named
        raise AttributeError(f"the stage uses the setting '{key}' without naming it in READS")

    def __setattr__(self, key: str, value: Any) -> None:
        raise AttributeError("settings are frozen")


def flat(settings: Any, keys: tuple[str, ...], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of `keys` by dotted names ("train.batch_size"), but for those in `without`; pairs as lists, as JSON has them."""
    found: dict[str, Any] = {}
    for key in keys:
        value = attrgetter(key)(settings)
        within = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else {}
        found |= {f"{key}.{name}": item for name, item in within.items()} or {key: value}
    return {key: list(item) if isinstance(item, tuple) else item for key, item in found.items() if key not in without}


def load(path: Path, keys: tuple[str, ...]) -> Chosen:
    """Check all of params.yaml and return `keys` of it: names, whole sections, or `section.name`.

    Raises UserError that lists every unknown key, missing key and bad value, each with what is valid.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the project's folder, or restore it with git") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, a 13th month, 5,000 digits
        raise UserError(f"{path} is not YAML: {error}") from None
    problems: list[str] = []
    settings = _section(Settings, content, "", problems)
    if not problems:
        problems += _across_sections(settings)
    if problems:
        raise UserError(f"{path} has settings that can't be used:\n" + "\n".join(f"  {p}" for p in problems))
    return Chosen(settings, keys)


def _section(kind: type, content: Any, prefix: str, problems: list[str]) -> Any:
    if not isinstance(content, dict):
        problems.append(f"{prefix.rstrip('.') or 'the file'}: expected names and values, found {BRIEFLY.repr(content)}")
        return None
    hints = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for key in content:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            problems.append(f"{prefix}{key}: unknown setting; {hint}valid here: {', '.join(fields)}")
    values = {}
    for name, item in fields.items():
        if name not in content:
            problems.append(f"{prefix}{name}: missing; every setting must be given")
        elif dataclasses.is_dataclass(hints[name]):
            values[name] = _section(hints[name], content[name], f"{prefix}{name}.", problems)  # type: ignore[arg-type]
        else:
            try:
                values[name] = _value(hints[name], content[name], item.metadata)
            except ValueError as error:
                problems.append(f"{prefix}{name}: {BRIEFLY.repr(content[name])} is not valid; expected {error}")
    return None if problems else kind(**values)


def _value(kind: Any, value: Any, limits: Any) -> Any:
    """`value` as `kind`, within `limits`; ValueError says what would be valid."""
    if kind == tuple[float, float]:
        pair = value if isinstance(value, list) else [value, value]
        try:
            if len(pair) != 2:
                raise ValueError
            return tuple(_value(float, item, limits) for item in pair)
        except ValueError:
            raise ValueError(f"a list of two numbers, each {_described(limits)}") from None
    if "or_word" in limits:
        word, rest = limits["or_word"], {key: limit for key, limit in limits.items() if key != "or_word"}
        try:
            return value if value == word else _number(int if kind == int | str else float, value, rest)
        except ValueError as error:
            raise ValueError(f"{word}, or {error}") from None
    if "one_of" in limits:
        # YAML 1.1 reads a bare `none` as text but `off`, `no` as False: only exact names count.
        if value not in limits["one_of"]:
            raise ValueError(f"one of {', '.join(limits['one_of'])}")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if kind is str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("a text that is not empty")
        return value
    return _number(kind, value, limits)


def _number(kind: type, value: Any, limits: Any) -> float | int:
    expected = f"{'a whole number' if kind is int else 'a number'} {_described(limits)}"
    try:
        # PyYAML reads 1e-05, which `dvc exp run -S lr=1e-5` writes, as text.
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    inside = (
        math.isfinite(number)
        and number >= limits.get("at_least", -math.inf)
        and number <= limits.get("at_most", math.inf)
        and number > limits.get("above", -math.inf)
        and number < limits.get("below", math.inf)
    )
    if not inside or (kind is int and number != int(number)):
        raise ValueError(expected)
    return kind(number)


def _described(limits: Any) -> str:
    words = {"at_least": "at least", "at_most": "at most", "above": "above", "below": "below"}
    return " and ".join(f"{words[key]} {limit}" for key, limit in limits.items())


def _across_sections(settings: Settings) -> list[str]:
    """Rules that bind two settings to each other."""
    problems = []
    if settings.folds == 2:
        problems.append("folds: 2 is not valid; expected 1 (hold-out) or at least 3 (train, val and test folds)")
    if (count := settings.folds * settings.train.networks) > MOST_IN_ALL:
        problems.append(f"folds and train.networks: {count} networks, more than {MOST_IN_ALL}; lower one of the two")
    if settings.stats.val + settings.stats.test >= 1:
        problems.append("stats.val + stats.test: the two shares leave no training rows; expected a sum below 1")
    if settings.stats.pos_weight_min > settings.stats.pos_weight_max:
        problems.append("stats.pos_weight_min is above stats.pos_weight_max")
    if settings.train.head_start == "regression" and settings.train.hidden:
        problems.append("train.head_start: regression has no hidden layer; set train.hidden to 0, or train.head_start to random")
    if settings.train.views and settings.augment.mix != "none":
        problems.append("train.views: mixed pictures are new in every epoch; set augment.mix to none, or train.views to 0")
    if settings.augment.crop_scale[0] > settings.augment.crop_scale[1]:
        problems.append("augment.crop_scale: the first number must not exceed the second")
    return problems
