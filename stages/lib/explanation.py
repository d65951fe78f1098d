"""Why a model says what it says of one picture: a panel with a Grad-CAM map per attribute."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.lib import galleries, gradcam
from stages.lib.engine import Engine
from stages.lib.preprocessing import seen


def panel(path: Path, engine: Engine, picture: np.ndarray, image: str, probabilities: np.ndarray, thresholds: np.ndarray) -> None:
    """Write a sheet of the attributes, most probable first, as many as a sheet holds.

    `picture` is uint8 (side, side, 3), the others (n_attributes,). Members of a model of several folds see
    differently: the maps are the means of theirs. Networks are built anew, since the folded ones only predict.
    """
    columns = np.argsort(-probabilities, kind="stable")[: galleries.MOST]
    repeated = np.repeat(picture[None], len(columns), axis=0)
    maps = [
        gradcam.heatmap(network.to(engine.device), repeated, columns, engine.preprocessing, engine.device)
        for network in engine.saved.networks()
    ]
    cells = []
    for column in columns:
        word = "present" if probabilities[column] >= thresholds[column] else "absent"
        title = f"{engine.attributes[column]}: {word}, {probabilities[column]:.1%}"
        cells.append(galleries.Cell(0, int(column), title, f"threshold {thresholds[column]:.2f}"))
    visible = seen(picture[None], engine.preprocessing)[0]
    galleries.sheet(path, cells, lambda _: visible, np.mean(maps, axis=0), image, "the model has no attributes")
