"""What a table of predictions says in all: images, failures, how often each attribute is present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stages.lib.faults import shown
from stages.lib.tables import Row

FAILURES, ATTRIBUTES = 5, 20  # that are named on the terminal


class Summary:
    """Counts the rows that pass through `counted`."""

    def __init__(self, attributes: Sequence[str]) -> None:
        self.attributes = list(attributes)
        self.images, self.failed = 0, 0
        self.present = [0] * len(self.attributes)
        self.first: list[Row] = []

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self.images += 1
            if row.reason:
                self.failed += 1
                self.first += [row] if len(self.first) < FAILURES else []
            for column, decision in enumerate(row.decisions):
                self.present[column] += decision
            yield row

    def text(self, title: str, out: str) -> str:
        tagged = self.images - self.failed
        found = [
            f"{shown(title, 200)}: {self.images} files, {tagged} tagged, {self.failed} could not be read -> {shown(out, 200)}"
        ]
        found += [f"  {shown(row.image, 200)}: {row.reason}" for row in self.first]
        if self.failed > len(self.first):
            found.append(f"  and {self.failed - len(self.first)} more, each with its reason in the table")
        found.append(f"  {'attribute':<20} {'present':>7} {'absent':>7}")
        for name, present in list(zip(self.attributes, self.present, strict=True))[:ATTRIBUTES]:
            found.append(f"  {shown(name, 20):<20} {present:>7} {tagged - present:>7}")
        return "\n".join(found)

    def as_json(self, out: str, model: str) -> dict[str, Any]:
        present = dict(zip(self.attributes, self.present, strict=True))
        counts = {"images": self.images, "tagged": self.images - self.failed, "unreadable": self.failed}
        return {"out": out, "model": model, **counts, "present": present}
