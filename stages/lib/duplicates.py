"""Near-duplicates: a perceptual hash finds candidate pairs, a comparison of pixels confirms them, pairs make groups.

The hash (pHash of the ImageHash library) alone either misses light crops or takes any two dresses on white
for copies; so it is asked loosely (`validate.duplicate_distance`) and each candidate pair is then compared
pixel by pixel, over small shifts and crops, on thumbnails. Measured in tests/bench/duplicates.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SIDE = 32  # of the thumbnails that are compared
COARSE = 8  # side of what is taken away from them: two silhouettes on white are alike in the coarse, not in detail
SAME = 0.82  # correlation of the detail from which two thumbnails show the same picture
CROPS = (1.0, 0.975, 0.95, 0.925)  # share of the side that a crop keeps
ROWS_AT_ONCE = 256


def signature(pixels: np.ndarray) -> tuple[int, int]:
    """64-bit perceptual hash of a picture (uint8, shape (side, side, 3)) and of its mirror image."""
    grey = Image.fromarray(pixels).convert("L").reduce(2)
    mirrored = grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    plain, flipped = (int(str(imagehash.phash(picture)), 16) for picture in (grey, mirrored))
    return plain, flipped


def pairs(pixels: np.ndarray, signatures: np.ndarray, digests: list[str], distance: int) -> np.ndarray:
    """Pairs of near-duplicates, shape (n_pairs, 2), first index below the second, sorted.

    `pixels` has shape (n_images, side, side, 3) and may be a memory map; `signatures` shape (n_images, 2),
    uint64; `digests` are those of the files: equal files are always a pair.
    """

    @lru_cache(maxsize=256)  # 90 MB; candidates come sorted, so the first of a pair is nearly always found here
    def views(index: int, mirrored: bool) -> np.ndarray:
        return _views(np.array(pixels[index]), mirrored)

    found = {
        (first, second)
        for first, second, mirrored in _candidates(signatures, distance)
        if digests[first] == digests[second] or _alike(views, first, second, mirrored)
    }
    return np.array(sorted(found | _equal_files(digests)), dtype=int).reshape(-1, 2)


def groups(n_images: int, linked: np.ndarray) -> np.ndarray:
    """Group of every image, shape (n_images,): the index of the group's first image; `linked` is of `pairs`."""
    ones = np.ones(len(linked), dtype=bool)
    graph = coo_matrix((ones, (linked[:, 0], linked[:, 1])), shape=(n_images, n_images))
    _, component = connected_components(graph, directed=False)
    _, first, of = np.unique(component, return_index=True, return_inverse=True)
    return first[of]


def agreement(targets: np.ndarray, linked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often near-duplicates carry the same label, per attribute, over pairs where both are known.

    Returns (pairs with both labels known, pairs that agree, expected agreements by chance), each of shape
    (n_attributes,). By chance two labels agree with probability p² + (1 - p)², p the base rate.
    """
    first, second = targets[linked[:, 0]], targets[linked[:, 1]]
    both = ~np.isnan(first) & ~np.isnan(second)
    known = (~np.isnan(targets)).sum(axis=0)
    rate = (targets == 1).sum(axis=0) / np.maximum(known, 1)
    return both.sum(axis=0), (both & (first == second)).sum(axis=0), both.sum(axis=0) * (rate**2 + (1 - rate) ** 2)


def _candidates(signatures: np.ndarray, distance: int) -> list[tuple[int, int, bool]]:
    plain, flipped = signatures[:, 0], signatures[:, 1]
    found = []
    for start in range(0, len(plain), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        for mirrored, hashes in ((False, plain), (True, flipped)):
            near = np.bitwise_count(hashes[rows, None] ^ plain[None, :]) <= distance
            first, second = np.nonzero(near)
            first += start
            ahead = first < second
            found += [(int(a), int(b), mirrored) for a, b in zip(first[ahead], second[ahead], strict=True)]
    return sorted(found)


def _equal_files(digests: list[str]) -> set[tuple[int, int]]:
    first: dict[str, int] = {}
    pairs_of_equals = ((first.setdefault(digest, index), index) for index, digest in enumerate(digests))
    return {pair for pair in pairs_of_equals if pair[0] != pair[1]}


def _alike(views: Callable[[int, bool], np.ndarray], first: int, second: int, mirrored: bool) -> bool:
    """Whether the whole of one picture correlates with the whole or a crop of the other."""
    one, other = views(first, mirrored), views(second, False)
    return bool(max((other @ one[0]).max(), (one @ other[0]).max()) >= SAME)


def _views(pixels: np.ndarray, mirrored: bool) -> np.ndarray:
    """Detail of a picture's crops, the whole picture first, centred and of norm 1: shape (n_views, values)."""
    picture = Image.fromarray(pixels).reduce(2)
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    details = []
    for kept in CROPS:
        spare = picture.width * (1 - kept)
        corners = (0.0, 0.5, 1.0) if kept < 1 else (0.0,)
        for left in corners:
            for top in corners:
                box = (left * spare, top * spare, picture.width - (1 - left) * spare, picture.height - (1 - top) * spare)
                details.append(_detail(picture, box))
    values = np.stack(details)
    values -= values.mean(axis=1, keepdims=True)
    # A blank picture has no detail: its norm stays near 0 and it is like no other (equal files are caught by digest).
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1.0)


def _detail(picture: Image.Image, box: tuple[float, float, float, float]) -> np.ndarray:
    fine = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
    coarse = fine.resize((COARSE, COARSE), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return (np.asarray(fine, dtype=np.float32) - np.asarray(coarse, dtype=np.float32)).ravel()
