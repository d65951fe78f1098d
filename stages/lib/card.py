"""The model card: what a person who gets model.pth should know before using it, filled from the run's own numbers.

Sections after Mitchell et al., Model Cards for Model Reporting (2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stages.lib import verdicts
from stages.lib.faults import shown
from stages.lib.findings import number, ranged
from stages.lib.preprocessing import Preprocessing

SHAPES = {"squash": "stretched to fit", "pad": "with white beside it", "crop": "the middle of it"}
USES = {
    verdicts.LEARNED: "usable, as far as the scores below go",
    verdicts.WEAK: "as a hint that a person checks",
    verdicts.NOTHING: "do not use: a constant is as good",
    verdicts.TOO_FEW: "unknown: label more first",
}


@dataclass(frozen=True)
class Subject:
    """What the card is about: the model, and the rows it comes from.

    `targets` (n_images, n_attributes) are all labels, NaN for unknown; `groups` (n_images,) are equal for near-duplicates;
    `n_scored` images were unseen by the networks that are scored on them.
    """

    fingerprint: str
    backbone: str
    seen: Preprocessing
    settings: dict[str, Any]
    labels: str
    targets: np.ndarray
    groups: np.ndarray
    n_scored: int
    folds: int
    goal: str
    n_networks: int  # of all folds
    share: float  # of the regression on frozen features in what the model says, mean over the folds


def text(subject: Subject, table: pd.DataFrame, macro: dict[str, float]) -> str:
    """The card as Markdown. `table` is attributes.csv; undefined scores are written as words or a dash, never as NaN."""
    rows = table.to_dict("records")
    parts = [_opening(subject, rows), _use(rows), _data(subject, rows), _scores(subject, rows, macro)]
    return "\n\n".join([*parts, _decisions(subject, rows, macro), _limits(subject, rows), _how_to()]) + "\n"


def _opening(subject: Subject, rows: list[dict[str, Any]]) -> str:
    named = [key for key in ("weights", "freeze", "epochs", "lr", "seed") if key in subject.settings]
    chosen = ", ".join(f"{key} {_plain(subject.settings[key])}" for key in named)
    models = "one network" if subject.n_networks == 1 else f"{subject.n_networks} networks, averaged"
    if subject.folds > 1:
        each = subject.n_networks // subject.folds
        models = f"{subject.n_networks} networks, {'one' if each == 1 else each} per fold"
    names = ", ".join(_plain(row["attribute"]) for row in rows)
    beside = f"; beside it, with a share of {subject.share:.2g}, a regression on the features of the pretrained network"
    return (
        "# Model card\n\n"
        "Written by `dvc repro evaluate` from this run's numbers; do not edit.\n\n"
        f"- Model: `models/model.pth` (SHA-256 starts with `{subject.fingerprint[:12]}`), {models}, "
        f"backbone {_code(subject.backbone)} ({chosen}){beside if subject.share else ''}\n"
        f"- Tags: {names}\n"
        f"- Input: any picture, made a square of {subject.seen.side} px ({SHAPES[subject.seen.fit]}) "
        f"and scored at {subject.seen.resolution} px\n"
        "- Output: a calibrated probability and a decision for each tag; tags do not exclude each other"
    )


def _use(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {_plain(row['attribute'])} | {row['verdict']} | {USES[row['verdict']]} |" for row in rows]
    head = "| tag | do the labels carry a signal that the model reads? | so |\n|---|---|---|\n"
    about = "For tagging pictures like those it was trained on. Each tag has a verdict of its own:\n\n"
    return f"## Intended use\n\n{about}{head}" + "\n".join(lines)


def _data(subject: Subject, rows: list[dict[str, Any]]) -> str:
    n_images = len(subject.targets)
    copies = n_images - len(np.unique(subject.groups))
    known, positives = (~np.isnan(subject.targets)).sum(axis=0), (subject.targets == 1).sum(axis=0)
    lines = [
        f"| {_plain(row['attribute'])} | {positive} | {count - positive} | {n_images - count} |"
        for row, count, positive in zip(rows, known.tolist(), positives.tolist(), strict=True)
    ]
    about = f"{n_images} usable images of {_code(subject.labels)}. Near-copies of others among them: {copies}"
    return (
        f"## Data\n\n{about}; copies stay on one side of every split.\n\n"
        "| tag | present | absent | unknown |\n|---|--:|--:|--:|\n" + "\n".join(lines)
    )


def _scores(subject: Subject, rows: list[dict[str, Any]], macro: dict[str, float]) -> str:
    """Scores with intervals, beside what a constant and the frozen features get."""
    lines = [
        f"| {_plain(name)} | {_of(row)} | {ranged(row, 'ap')} | {number(row['ap_constant'])} | {number(row['ap_features'])} "
        f"| {ranged(row, 'roc_auc')} | {ranged(row, 'skill')} |"
        for name, row in [*((row["attribute"], row) for row in rows), ("macro", macro)]
    ]
    unseen = f"{subject.n_scored} images" + (
        ", each scored by the model that has not seen it." if subject.folds > 1 else " that training has not seen."
    )
    return (
        f"## Scores\n\nOn {unseen} In brackets 95 % intervals; they hold the chance of these images, not that of "
        "another seed.\n\n| tag | present of known | AP | AP of a constant | AP of regression on frozen features | ROC-AUC "
        "| skill |\n|---|--:|---|--:|--:|---|---|\n" + "\n".join(lines) + "\n\n"
        "AP (average precision) and ROC-AUC say how well the tag's pictures are ranked before the others; 1 is perfect, and "
        "without a signal AP is the share of pictures with the tag, ROC-AUC 0.5. Skill is the share of a constant's log loss "
        "that is gone: 0 is no better than the base rate, 1 is perfect."
    )


def _of(row: dict[str, Any]) -> str:
    return f"{row['positives']} of {row['known']}" if "known" in row else ""


def _decisions(subject: Subject, rows: list[dict[str, Any]], macro: dict[str, float]) -> str:
    lines = [
        f"| {_plain(row['attribute'])} | {row['threshold']:.3f} | {number(row['precision'])} | {number(row['recall'])} "
        f"| {ranged(row, 'f1')} | {number(row['ece'])} |"
        for row in rows
    ]
    return (
        f"## Decisions\n\nThresholds for {subject.goal}, tuned on other images than those scored here.\n\n"
        "| tag | threshold | precision | recall | F1 | calibration error (ECE) |\n|---|--:|--:|--:|---|--:|\n"
        + "\n".join(lines)
        + "\n\nPrecision: of the pictures that get the tag, the share that have it. Recall: of those that have it, the share "
        "that get it. ECE: how far probabilities lie from what is then found, on average. Its mean is "
        f"{number(macro['ece'])}, and {number(macro['ece_raw'])} before the probabilities are corrected."
    )


def _limits(subject: Subject, rows: list[dict[str, Any]]) -> str:
    tested = sum(not np.isnan(row["p"]) for row in rows)
    lines = [
        f"- {_plain(row['attribute'])}: {verdicts.explained(row['verdict'], row['positives'], row['negatives'], tested)}."
        for row in rows
        if row["verdict"] == verdicts.TOO_FEW
    ]
    lines += [
        f"- {_plain(row['attribute'])}: regression on frozen features does no worse here (AP {number(row['ap_features'])})."
        for row in rows
        if row["ap_features"] >= row["ap"]
    ]
    lines += [
        "- The scores hold for pictures from the same source. For others, label a few dozen and score them first.",
        "- One training run: another seed gives other numbers, and the test images are a sample.",
        "- Pretrained weights bring along what the pictures they were trained on show and leave out, and their licence.",
        "- Not examined: how scores differ between groups of people, places or cameras.",
    ]
    return "## Limitations\n\n" + "\n".join(lines)


def _how_to() -> str:
    return (
        "## How to run\n\n"
        "In this project's folder and environment (`README.md`):\n\n"
        "    python -m stages.predict --image photo.jpg\n"
        "    python -m stages.predict --images folder/ --recursive --out tags.csv\n\n"
        "`models/decision.json` must lie beside the model: it holds thresholds and calibration."
    )


def _plain(text: object) -> str:
    """A name that can't break a Markdown table, or become markup."""
    return "".join(f"\\{c}" if c in "\\`*_|<>[]#$" else c for c in shown(text))


def _code(text: str) -> str:
    """As code, in which nothing is markup but the backtick."""
    return "`" + shown(text).replace("`", "'") + "`"
