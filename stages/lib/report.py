"""What validate tells: the verdict, the ten-second summary, the figures, and the contact sheet of duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from stages.lib import faults as kinds
from stages.lib import files
from stages.lib.faults import Fault, shown
from stages.lib.labels import Labels, negatives, positives
from stages.lib.pixels import Pictures

THUMB, GAP, LINE = 144, 6, 20  # the contact sheet, in pixels: thumbnail, gap beside it, line for its name
ACROSS, ROWS = 8, 24  # thumbnails in a row and rows at most


@dataclass(frozen=True)
class Validation:
    """The outcome of validate; `table` holds the usable rows."""

    labels_file: Path
    read: Labels
    table: pd.DataFrame
    faults: list[Fault]
    max_rejected: float

    @property
    def rejected(self) -> int:
        return sum(fault.effect == kinds.ROW for fault in self.faults)

    @property
    def verdict(self) -> str:
        """Why the run must stop, or an empty text."""
        if self.read.n_rows and self.rejected / self.read.n_rows > self.max_rejected:
            share = self.rejected / self.read.n_rows
            limit = f"above validate.max_rejected ({self.max_rejected:.1%})"
            way_out = "mend the rows named below, or raise the limit in params.yaml"
            return f"{self.rejected} of {self.read.n_rows} rows are set aside ({share:.1%}), {limit}: {way_out}"
        spoilt = sum(fault.effect == kinds.CELL for fault in self.faults)
        cells = self.read.n_rows * len(self.read.attributes)
        if spoilt > self.max_rejected * cells:
            limit = f"above validate.max_rejected ({self.max_rejected:.1%})"
            return f"{spoilt} of {cells} labels can't be used ({spoilt / cells:.1%}), {limit}: write 1, 0 or NA"
        if self.table.empty:
            return f"{self.labels_file}: no row has both a usable image and a known label: nothing to train on"
        hopeless = {fault.column for fault in self.faults if fault.kind == "one_class_only"}
        if hopeless == set(self.read.attributes):
            return f"{self.labels_file}: every attribute has one class only: nothing to learn"
        return ""

    def figures(self, groups: np.ndarray) -> dict[str, Any]:
        """The content of metrics/validation.json."""
        sizes = np.bincount(groups)
        targets = self.table[self.read.attributes].to_numpy(float)
        return {
            "rows": self.read.n_rows,
            "images": len(self.table),
            "rejected": self.rejected,
            "unknown_share": float(np.isnan(targets).mean()),
            "duplicate_groups": int((sizes > 1).sum()),
            "duplicate_images": int(sizes[sizes > 1].sum()),
            "faults": kinds.counts(self.faults),
        }

    def text(self, groups: np.ndarray | None = None) -> str:
        """A summary that a person reads in ten seconds."""
        attributes = self.read.attributes
        share = self.rejected / self.read.n_rows if self.read.n_rows else 0.0
        lines = [
            f"{self.labels_file}: {self.read.n_rows} rows, {len(self.table)} usable images, {len(attributes)} attributes; "
            f"{self.rejected} set aside ({share:.1%}, limit {self.max_rejected:.1%})"
        ]
        done = {kinds.ROW: "set aside", kinds.CELL: "made NA", kinds.NOTE: "noted"}
        for kind, count in kinds.counts(self.faults).items():
            example = next(fault for fault in self.faults if fault.kind == kind)
            where = f"line {example.line}: " if example.line else ""
            lines.append(f"  {done[example.effect]:<9} {count:>5} {kind:<18} {where}{example.message}")
        lines.append(self._attribute_lines(attributes))
        if groups is not None:
            sizes = np.bincount(groups)
            within = f"{(sizes > 1).sum()} groups with {sizes[sizes > 1].sum()} images"
            lines.append(f"  near-duplicates: {within} (metrics/duplicates.csv, .png); a group never crosses a split")
        return "\n".join(lines)

    def _attribute_lines(self, attributes: list[str], most: int = 12) -> str:
        targets = self.table[attributes].to_numpy(float)
        rows = zip(attributes, positives(targets), negatives(targets), np.isnan(targets).sum(axis=0), strict=True)
        lines = [f"  {'attribute':<20} {'1':>6} {'0':>6} {'NA':>6}"]
        lines += [f"  {shown(name, 20):<20} {one:>6} {zero:>6} {unknown:>6}" for name, one, zero, unknown in rows]
        if len(attributes) > most:
            lines = [*lines[: most + 1], f"  and {len(attributes) - most} more"]
        return "\n".join(lines)


def duplicates_sheet(path: Path, store: Pictures, groups: np.ndarray, names: list[str]) -> None:
    """A contact sheet of near-duplicate groups: one group a row, largest first, at most 24 rows of 8."""
    sizes = np.bincount(groups)
    order = [group for group in np.argsort(-sizes, kind="stable") if sizes[group] > 1][:ROWS]
    across = min(ACROSS, max(2, sizes.max()))
    height = len(order) * (THUMB + LINE) or 3 * LINE
    sheet = Image.new("RGB", (across * (THUMB + GAP), height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    if not order:
        draw.text((12, LINE), "no near-duplicates found", fill="black", font=ImageFont.load_default(size=14))
    for row, group in enumerate(order):
        for column, member in enumerate(np.flatnonzero(groups == group)[:across]):
            corner = (column * (THUMB + GAP), row * (THUMB + LINE))
            sheet.paste(Image.fromarray(store[member]).resize((THUMB, THUMB)), corner)
            draw.text((corner[0], corner[1] + THUMB + 2), shown(names[member], 24), fill="black", font=font)
    with files.replacing(path) as temporary:
        sheet.save(temporary)
