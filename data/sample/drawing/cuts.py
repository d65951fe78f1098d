"""The measures of a garment. Angles are in radians from straight down, outwards."""

from dataclasses import dataclass

import numpy as np

from .traits import Traits


@dataclass(frozen=True)
class Cut:
    """Half widths and heights of the garment, and how the arms lie."""

    neck: float
    neck_y: float
    depth: float
    shoulder: float
    slope: float
    armhole: float
    chest: float
    waist: float
    hem: float
    hem_y: float
    bow: float
    sleeve: float
    loose: float
    arms: tuple[tuple[float, float], tuple[float, float]]


def random_cut(rng: np.random.Generator, traits: Traits) -> Cut:
    shoulder = rng.uniform(0.155, 0.205)
    chest = shoulder * rng.uniform(0.84, 1.02)
    flare = rng.uniform(1.2, 1.7) if rng.random() < 0.2 else rng.uniform(0.9, 1.12)
    hem_y = rng.choice(
        [rng.uniform(0.62, 0.7), rng.uniform(0.72, 0.86), rng.uniform(0.88, 0.98)],
        p=[0.15, 0.65, 0.2],
    )
    return Cut(
        neck=rng.uniform(0.058, 0.078),
        neck_y=rng.uniform(0.215, 0.25),
        depth=rng.uniform(0.05, 0.1),
        shoulder=shoulder,
        slope=rng.uniform(0.03, 0.065),
        armhole=rng.uniform(0.12, 0.16),
        chest=chest,
        waist=chest * rng.uniform(0.78, 1.02),
        hem=chest * flare,
        hem_y=hem_y,
        bow=rng.uniform(-0.01, 0.035),
        sleeve=random_sleeve(rng, traits.long_sleeve),
        loose=rng.uniform(0.85, 1.3),
        arms=random_arms(rng),
    )


def random_sleeve(rng: np.random.Generator, long: bool) -> float:
    """Share of the arm that is covered; the elbow is at 0.5."""
    if long:
        return rng.uniform(0.88, 1.0) if rng.random() < 0.5 else rng.uniform(0.64, 0.8)
    return 0.0 if rng.random() < 0.12 else rng.uniform(0.26, 0.45)


def random_arms(rng: np.random.Generator) -> tuple[tuple[float, float], tuple[float, float]]:
    """Angles of upper arm and forearm on either side, often alike."""
    upper = rng.uniform(0.1, 0.95)
    bend = rng.uniform(-1.0, 0.25)
    first = (upper, upper + bend)
    if rng.random() < 0.6:
        return first, first
    upper = np.clip(upper + rng.uniform(-0.3, 0.3), 0.08, 1.1)
    return first, (upper, upper + rng.uniform(-1.6, 0.3))
