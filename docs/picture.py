"""The README's picture, from what the last run has written: the first new images with their tags, and the scores.

    python -m docs.picture          # after `dvc repro`

Reads   data/predictions.csv, metrics/attributes.csv, params.yaml (predict.images)
Writes  docs/overview.jpg
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml
from matplotlib import pyplot as plt
from PIL import Image

from stages.lib import plots

ROOT = Path(__file__).parents[1]
SHOWN = 6


def main() -> None:
    scores = pd.read_csv(ROOT / "metrics/attributes.csv")
    predictions = pd.read_csv(ROOT / "data/predictions.csv")
    images = ROOT / yaml.safe_load((ROOT / "params.yaml").read_text())["predict"]["images"]
    figure = plt.figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    left.suptitle("new images: what the model sees in them", fontsize=11)
    for panel, row in zip(left.subplots(2, 3).flat, predictions.head(SHOWN).to_dict("records"), strict=False):
        panel.imshow(Image.open(images / row["image"]).convert("RGB").resize((224, 224)))
        tags = [f"{name} {row[f'{name}_probability']:.0%}" for name in scores["attribute"] if row[name] == 1]
        panel.set_title("\n".join([", ".join(tags[:2]), ", ".join(tags[2:])]).strip() or "nothing", fontsize=8)
        panel.axis("off")
    panel = right.subplots()
    plots.draw_score(panel, scores.iloc[::-1], "ap", "average precision")
    panel.legend(loc="upper center", bbox_to_anchor=(0.4, -0.14), ncols=2, frameon=False, fontsize=8)
    right.suptitle("test images: how good that is, and how sure", fontsize=11)
    figure.savefig(ROOT / "docs/overview.jpg", dpi=100, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
