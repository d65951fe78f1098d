"""Does the difference between two experiments hold? Attribute by attribute, on the test images that both were scored on.

    python -m stages.compare main sad-newt         two revisions: branches, tags, commits, experiment names
    python -m stages.compare main                  a revision and the workspace

Reads   metrics/predictions.csv of both, from DVC's cache or the disk
Prints  for AP, ROC-AUC, F1 and skill both scores, the difference, its 95 % interval, and whether it holds
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from stages.lib import contrast, files, loss
from stages.lib.errors import UserError, first_line, run_stage
from stages.lib.evidence import Outcome
from stages.lib.faults import shown

WORKSPACE = "workspace"
TITLES = {"ap": "AP", "roc_auc": "ROC-AUC", "f1": "F1", "skill": "skill (share of a constant's log loss that is gone)"}
SEED = 0  # of the bootstrap; not that of the experiments, which may differ


def main() -> None:
    args = arguments()
    first, second = (predictions(revision, args.predictions) for revision in (args.first, args.second))
    refuse_different_rows(first, second, args.first, args.second)
    attributes = list(pd.unique(first["attribute"]))
    # `one` is the second: the question is what the new experiment is next to the old one.
    found = contrast.contrast(attributes, outcome(second, attributes), outcome(first, attributes), SEED)
    if args.out:
        titles = {"one": args.second, "other": args.first} if args.first != args.second else {}
        files.write_table(args.out, found.drop(columns="macro").rename(columns=titles).round(6))
    print(text(found, args.first, args.second, first["image"].nunique()))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="revision to compare with: a branch, tag, commit, experiment, or 'workspace'")
    parser.add_argument("second", nargs="?", default=WORKSPACE, help="revision that is judged (default: workspace)")
    parser.add_argument("--predictions", type=Path, default=Path("metrics/predictions.csv"))
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    return parser.parse_args()


def predictions(revision: str, path: Path) -> pd.DataFrame:
    """The scored rows of a revision, as evaluate has written them."""
    if revision == WORKSPACE:
        table = files.read_table(path, "evaluate")
    else:
        table = files.parse_table(from_dvc(revision, path), f"{path} of {revision}", "evaluate")
    missing = {"image", "group", "attribute", "label", "log_odds", "decision", "base_rate"} - set(table)
    if missing or table.empty:
        what = f"has no column '{sorted(missing)[0]}'" if missing else "is empty"
        raise UserError(f"{path} of {revision} {what}: it is of another version of this project; run 'dvc repro' there")
    twice = table.duplicated(["image", "attribute"])
    if twice.any():
        name = table.loc[twice, "image"].iloc[0]
        raise UserError(f"{path} of {revision} names '{shown(name)}' twice for one attribute; run 'dvc repro --force evaluate'")
    return table.sort_values("image", kind="stable", ignore_index=True)  # attributes keep their order


def from_dvc(revision: str, path: Path) -> str:
    """The text of a file that DVC tracks, as of a revision."""
    import dvc.api  # takes seconds, and is not needed for the workspace
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    try:
        return dvc.api.read(str(path), rev=revision, encoding="utf-8")
    except (DvcException, SCMError, OSError, UnicodeDecodeError) as error:
        way_out = "see 'dvc exp show' for names; 'dvc fetch' or 'dvc pull' brings what another machine has pushed"
        raise UserError(f"{path} of {revision} can't be read: {first_line(error)}; {way_out}") from None


def refuse_different_rows(first: pd.DataFrame, second: pd.DataFrame, one: str, other: str) -> None:
    """Raises UserError unless both score the same cells with the same labels."""
    keys = ["image", "attribute"]
    merged = first.merge(second, on=keys, how="outer", suffixes=("", "_other"), indicator=True)
    alone = merged[merged["_merge"] != "both"]
    both = merged[merged["_merge"] == "both"]
    changed = both[~(both["label"].eq(both["label_other"]) | (both["label"].isna() & both["label_other"].isna()))]
    # The numbers of groups change with other rows of the table; who stands with whom must not.
    partners = [both.groupby(column)["image"].transform("min") for column in ("group", "group_other")]
    regrouped = both[partners[0] != partners[1]]
    if alone.empty and changed.empty and regrouped.empty:
        return
    if len(alone):
        example = alone.iloc[0]
        where = one if example["_merge"] == "left_only" else other
        cell = f"'{shown(example['image'])}', {shown(example['attribute'])}, in {where}"
        found = f"{len(alone)} scored labels are in one only (e.g. {cell})"
    elif len(changed):
        example = changed.iloc[0]
        found = f"{len(changed)} labels differ (e.g. '{shown(example['image'])}', {shown(example['attribute'])})"
    else:
        found = f"their groups of near-duplicates differ (e.g. at '{shown(regrouped['image'].iloc[0])}')"
    raise UserError(
        f"{one} and {other} can't be compared: {found}. A difference in scores would be one of the test images too. "
        "Compare runs with the same data, seed, folds and stats section"
    )


def outcome(table: pd.DataFrame, attributes: list[str]) -> Outcome:
    """The long table, sorted by image, as arrays."""
    wide = {
        name: table.pivot(index="image", columns="attribute", values=name)[attributes].to_numpy(float)
        for name in ("label", "log_odds", "decision", "base_rate")
    }
    groups = table.drop_duplicates("image")["group"].to_numpy()
    constant = loss.best_constant(wide["base_rate"], np.array(1.0))
    return Outcome(wide["label"], wide["log_odds"], wide["decision"].astype(bool), constant, groups)


def text(found: pd.DataFrame, one: str, other: str, n_images: int) -> str:
    """A block per score, with a line per attribute."""
    lines = [f"{other} next to {one}, on the same {n_images} test images; difference with its 95 % interval"]
    for score, title in TITLES.items():
        lines.append(title)
        rows = found[found["score"] == score]
        printed = pd.concat([rows[~rows["macro"]].head(20), rows[rows["macro"]]])
        for row in printed.itertuples():
            if np.isnan(row.difference):
                lines.append(f"  {shown(row.attribute, 20):<20} undefined: one class only among the known labels")
                continue
            ends = f"[{row.low:+.3f}, {row.high:+.3f}]" if not np.isnan(row.low) else ""
            lines.append(
                f"  {shown(row.attribute, 20):<20} {row.other:.3f} -> {row.one:.3f}  {row.difference:+.3f} {ends:<18}  {row.word}"
            )
    lines.append("a difference holds at 5 %, corrected for the number of attributes; the chance of another seed is not in it")
    return "\n".join(lines)


if __name__ == "__main__":
    run_stage(main)
