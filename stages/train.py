"""Fine-tune pretrained networks on the training rows; stop each when its validation loss no longer falls.

    python -m stages.train

Reads   data/clean/{labels.csv, pixels.npy, splits.csv}, metrics/stats.json, params.yaml
        (seed, folds, backbone, weights, freeze, dropout, weight_decay, lr, epochs, validate.side, validate.fit, train, augment)
Writes  models/model.pth         self-sufficient: weights, attributes, preprocessing, settings (one member per fold)
        metrics/train.json       epochs and kept epoch (means over networks), validation loss beside the constant's, validation AP
        metrics/iterations.csv, metrics/epochs.csv, metrics/loss_curve.png
        metrics/early_word.csv   what logistic regression on the frozen features reaches, told before the first epoch
        data/frozen.safetensors  those features of every image, the regression's cross-validated log-odds, and for each fold
                                 the regression that evaluate reports beside the network
        models/checkpoint/       while it trains; after a kill the same command carries on with what is there
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from stages.lib import memory, params
from stages.lib.errors import run_stage
from stages.lib.launching import launch

READS = (
    *("seed", "folds", "backbone", "weights", "freeze", "dropout", "weight_decay", "lr", "epochs"),
    *("validate.side", "validate.fit", "train", "augment"),
)
WITHOUT_EFFECT = ("train.workers",)  # on what training ends with


def main() -> None:
    args = arguments()
    memory.keep_freed()
    settings = params.load(args.params, READS)
    if settings.train.processes > 1 and "WORLD_SIZE" not in os.environ:  # torchrun has started them already
        sys.exit(launch(settings.train.processes, [sys.executable, "-m", "stages.train", *sys.argv[1:]]))
    from stages.lib import all_folds  # PyTorch takes seconds: a wrong setting, or --help, is answered before

    all_folds.train(args, settings, params.flat(settings, READS, WITHOUT_EFFECT))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=Path, default=Path("data/clean"), help="folder that validate and stats have filled")
    parser.add_argument("--model", type=Path, default=Path("models/model.pth"), help="where the model goes")
    parser.add_argument("--frozen", type=Path, default=Path("data/frozen.safetensors"), help="where the frozen features go")
    parser.add_argument("--metrics", type=Path, default=Path("metrics"), help="folder for figures, and of stats.json")
    parser.add_argument("--checkpoint", type=Path, default=Path("models/checkpoint"), help="folder for an unfinished training")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    return parser.parse_args()


if __name__ == "__main__":
    run_stage(main)
