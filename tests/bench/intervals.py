"""How often a bootstrap interval of 95 % holds the true score, by several methods, on simulated scores.

OMP_NUM_THREADS=1 python -m tests.bench.intervals --repetitions 300

Scores are normal with standard deviation 1, and positives lie higher by a distance that gives the wanted ROC-AUC. So the
true AP, ROC-AUC, F1 and skill are integrals. Probabilities are calibrated; the constant is the true base rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from stages.lib import resampling

Z = special.ndtri(0.975)
SCORES = ("ap", "ap_gain", "roc_auc", "f1", "skill")


@dataclass(frozen=True)
class Case:
    """`rates` and `aucs` have one entry per attribute; `copies` images share a label and nearly share a score."""

    n_images: int
    rates: tuple[float, ...]
    aucs: tuple[float, ...]
    copies: int = 1
    together: bool = True
    missing: float = 0.0


def percentile(_: float, values: np.ndarray, __: np.ndarray) -> tuple[float, float]:
    return tuple(np.quantile(values, [0.025, 0.975]))


def basic(point: float, values: np.ndarray, __: np.ndarray) -> tuple[float, float]:
    return tuple(2 * point - np.quantile(values, [0.975, 0.025]))


def bca(point: float, values: np.ndarray, jackknife: np.ndarray) -> tuple[float, float]:
    """Efron (1987), Better bootstrap confidence intervals; `jackknife` holds the score without each group."""
    below = ((values < point).mean() + (values <= point).mean()) / 2
    bias = special.ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    influence = jackknife.mean() - jackknife
    squares = (influence**2).sum()
    skew = (influence**3).sum() / (6 * squares**1.5) if squares else 0.0
    moved = bias + np.array([-Z, Z])
    return tuple(np.quantile(values, special.ndtr(bias + moved / np.maximum(1 - skew * moved, 1e-9))))


def unshifted(point: float, values: np.ndarray, __: np.ndarray) -> tuple[float, float]:
    """As ours, and without the correction for bias."""
    best = values[values < 1].max(initial=-np.inf)
    if best == -np.inf:
        return point, point
    spread = np.log1p(-np.minimum(values, best)).std()
    return tuple(1 - (1 - min(point, best)) * np.exp([Z * spread, -Z * spread]))


def ours(point: float, values: np.ndarray, __: np.ndarray) -> tuple[float, float]:
    found = resampling.interval(values, point=point)
    return found.low, found.high


METHODS: dict[str, Callable[[float, np.ndarray, np.ndarray], tuple[float, float]]] = {
    "ours": ours,
    "unshifted": unshifted,
    "percentile": percentile,
    "basic": basic,
    "BCa": bca,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=1000)
    args = parser.parse_args()
    print(f"coverage of the 95 % interval in %, {args.repetitions} repetitions, {args.resamples} resamples")
    print(" ".join([f"{'images':<42} {'score':<8}", *(f"{name:>10}" for name in METHODS), "  ours: truth below, above"]))
    for case in cases():
        misses = coverage(case, args.repetitions, args.resamples)
        for name, counts in misses.items():
            rates = 100 * counts / args.repetitions
            shown = " ".join(f"{100 - low - high:>10.1f}" for low, high in rates)
            print(f"{title(case):<42} {name:<8} {shown}   {rates[0, 0]:.1f}, {rates[0, 1]:.1f}", flush=True)


def cases() -> list[Case]:
    single = [Case(n, (rate,), (auc,)) for n in (100, 200, 500) for rate in (0.1, 0.3) for auc in (0.7, 0.9)]
    macro = [Case(n, (0.1, 0.3) * 4, (0.7, 0.7, 0.9, 0.9) * 2, missing=0.3) for n in (200, 500)]
    copied = [Case(501, (0.3,), (0.9,), copies=3, together=together) for together in (True, False)]
    return [*single, *copied, *macro]


def title(case: Case) -> str:
    if len(case.rates) > 1:
        return f"{case.n_images}, macro of {len(case.rates)}, {case.missing:.0%} unknown"
    copies = f", {case.copies} copies {'together' if case.together else 'apart'}" if case.copies > 1 else ""
    return f"{case.n_images}, rate {case.rates[0]}, AUC {case.aucs[0]}{copies}"


def coverage(case: Case, repetitions: int, resamples: int) -> dict[str, np.ndarray]:
    """Per score an array (n_methods, 2): how often the truth lay below the interval and above it."""
    true = truth(case)
    misses = {name: np.zeros((len(METHODS), 2)) for name in SCORES}
    for repetition in range(repetitions):
        data = simulated(case, np.random.default_rng(repetition))
        groups = np.arange(case.n_images) // (case.copies if case.together else 1)
        alone = (groups[None, :] != np.unique(groups)[:, None]).astype(np.uint8)
        weights = (np.ones((1, case.n_images), np.uint8), resampling.draws(groups, resamples, repetition), alone)
        point, drawn, jackknife = (resampling.bootstrap(*data, each) for each in weights)
        for name in SCORES:
            key = f"{name}_macro"  # of one attribute it is that attribute's
            values, without = (found[key][~np.isnan(found[key])] for found in (drawn, jackknife))
            for row, method in enumerate(METHODS.values()):
                low, high = method(point[key][0], values, without)
                # An undefined interval holds nothing, and counts on both sides as half a miss.
                undefined = np.isnan(low)
                misses[name][row] += (0.5, 0.5) if undefined else (true[name] < low, true[name] > high)
    return misses


def simulated(case: Case, chance: np.random.Generator) -> list[np.ndarray]:
    """Targets, scores, decisions, losses and the constant's losses, each (n_images, n_attributes)."""
    columns = []
    n_groups = -(-case.n_images // case.copies)
    for rate, auc in zip(case.rates, case.aucs, strict=True):
        present = np.repeat(chance.random(n_groups) < rate, case.copies)[: case.n_images]
        shared = 0.9 if case.copies > 1 else 0.0
        noise = np.repeat(chance.normal(size=n_groups), case.copies)[: case.n_images]
        own = chance.normal(size=case.n_images)
        score = present * distance(auc) + np.sqrt(shared) * noise + np.sqrt(1 - shared) * own
        logits = posterior(score, rate, auc)
        cells = np.where(present, np.logaddexp(0, -logits), np.logaddexp(0, logits))
        constant = np.where(present, -np.log(rate), -np.log1p(-rate))
        decided = (score >= threshold(rate, auc)).astype(float)
        unknown = chance.random(case.n_images) < case.missing
        target, cells, constant = (np.where(unknown, np.nan, values) for values in (present, cells, constant))
        columns.append([target, score, decided, cells, constant])
    return [np.column_stack(parts) for parts in zip(*columns, strict=True)]


def distance(auc: float) -> float:
    return float(np.sqrt(2) * special.ndtri(auc))


def posterior(score: np.ndarray, rate: float, auc: float) -> np.ndarray:
    """Logit of the true probability that an image with this score is positive."""
    return distance(auc) * score - distance(auc) ** 2 / 2 + special.logit(rate)


GRID = np.linspace(-9, 12, 200_001)


def threshold(rate: float, auc: float) -> float:
    """The score whose F1 in the population is best."""
    return float(GRID[_f1(rate, auc).argmax()])


def _f1(rate: float, auc: float) -> np.ndarray:
    present, absent = stats.norm.sf(GRID - distance(auc)), stats.norm.sf(GRID)
    return 2 * rate * present / (rate + rate * present + (1 - rate) * absent)


def truth(case: Case) -> dict[str, float]:
    """The scores of infinitely many images, by integrals over the score; macro where there are several attributes."""
    rows, losses, constants = [], [], []
    for rate, auc in zip(case.rates, case.aucs, strict=True):
        present, absent = stats.norm.pdf(GRID - distance(auc)), stats.norm.pdf(GRID)
        above, below = rate * stats.norm.sf(GRID - distance(auc)), (1 - rate) * stats.norm.sf(GRID)
        ap = np.trapezoid(present * above / np.maximum(above + below, 1e-300), GRID)
        logits = posterior(GRID, rate, auc)
        cells = rate * present * np.logaddexp(0, -logits) + (1 - rate) * absent * np.logaddexp(0, logits)
        losses.append(np.trapezoid(cells, GRID))
        constants.append(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate))
        rows.append([ap, ap - rate, auc, _f1(rate, auc).max()])
    return dict(zip(SCORES, [*np.mean(rows, axis=0), 1 - sum(losses) / sum(constants)], strict=True))


if __name__ == "__main__":
    main()
