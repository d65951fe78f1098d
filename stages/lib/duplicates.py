"""Near-duplicates: a perceptual hash finds candidate pairs, a comparison of pixels confirms them, pairs make groups.

The hash (pHash of the ImageHash library) alone either misses light crops or takes any two dresses on white
for copies; so it is asked loosely (`validate.duplicate_distance`), a glance at thumbnails takes out most of what
it lets through, and what is left is compared pixel by pixel, over small shifts and crops. Measured in
tests/bench/duplicates.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from stages.lib import decoding
from stages.lib.pixels import Pictures

SIDE = 32  # of the thumbnails that are compared
COARSE = 8  # side of what is taken away from them: two silhouettes on white are alike in the coarse, not in detail
SAME = 0.82  # correlation of the detail from which two thumbnails show the same picture
CROPS = (0.975, 0.95, 0.925)  # share of the side that a crop keeps
# Of 548 cropped copies that SAME confirms, these two let 543 pass, and a quarter to a half of the other candidates.
GLANCE_WHOLE, GLANCE_DETAIL = 0.7, 0.4
ROWS_AT_ONCE, PAIRS_AT_ONCE = 256, 4096


@dataclass(frozen=True)
class Settled:
    """What an earlier run has found: the digests of the files it compared, and the pairs among them."""

    digests: frozenset[str] = frozenset()
    pairs: tuple[tuple[str, str], ...] = ()


def signature(pixels: np.ndarray) -> tuple[int, int]:
    """64-bit perceptual hash of a picture (uint8, shape (side, side, 3)) and of its mirror image."""
    grey = Image.fromarray(pixels).convert("L").reduce(2)
    mirrored = grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    plain, flipped = (int(str(imagehash.phash(picture)), 16) for picture in (grey, mirrored))
    return plain, flipped


def pairs(
    pixels: Pictures, signatures: np.ndarray, digests: Sequence[str], distance: int, settled: Settled = Settled()
) -> np.ndarray:
    """Pairs of near-duplicates, shape (n_pairs, 2), first index below the second, sorted.

    `pixels` holds pictures of shape (side, side, 3), read one at a time; `signatures` has shape (n_images, 2),
    uint64; `digests` are those of the files. Equal files are paired with the first of them. Two files that are
    both in `settled` are not compared again.
    """
    fresh = np.array([digest not in settled.digests for digest in digests], dtype=bool)
    first, second, mirrored = _candidates(signatures, distance, fresh)
    same_file = np.array([digests[a] == digests[b] for a, b in zip(first, second, strict=True)], dtype=bool)
    first, second, mirrored = (values[~same_file] for values in (first, second, mirrored))
    worth_it = _glance(pixels, first, second, mirrored)
    compared = [(int(a), int(b), bool(flip)) for a, b, flip in np.stack([first, second, mirrored], axis=1)[worth_it]]

    @lru_cache(maxsize=256)  # 90 MB; candidates come sorted, so the first of a pair is nearly always found here
    def views(index: int) -> np.ndarray:
        return _views(pixels[index])

    alike = decoding.in_order(partial(_alike, views), compared)
    found = {(a, b) for (a, b, _), same in zip(compared, alike, strict=True) if same}
    found |= _equal_files(digests) | _of_digests(digests, settled.pairs)
    return np.array(sorted(found), dtype=int).reshape(-1, 2)


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


def _candidates(signatures: np.ndarray, distance: int, fresh: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, mirrored) of the pairs with near hashes, at least one of them `fresh`, sorted."""
    plain, flipped = signatures[:, 0], signatures[:, 1]
    found = []
    for start in range(0, len(plain) if fresh.any() else 0, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        asked = fresh[rows, None] | fresh[None, :]
        for mirrored, hashes in ((False, plain), (True, flipped)):
            near = np.bitwise_count(hashes[rows, None] ^ plain[None, :]) <= distance
            first, second = np.nonzero(near & asked)
            ahead = first + start < second
            found.append(np.stack([first[ahead] + start, second[ahead], np.full(ahead.sum(), int(mirrored))]))
    joined = np.concatenate(found, axis=1) if found else np.empty((3, 0), dtype=int)
    first, second, flags = joined[:, np.lexsort(joined[::-1])]
    return first, second, flags.astype(bool)


def _equal_files(digests: Sequence[str]) -> set[tuple[int, int]]:
    first: dict[str, int] = {}
    pairs_of_equals = ((first.setdefault(digest, index), index) for index, digest in enumerate(digests))
    return {pair for pair in pairs_of_equals if pair[0] != pair[1]}


def _of_digests(digests: Sequence[str], known: Sequence[tuple[str, str]]) -> set[tuple[int, int]]:
    """Pairs of digests as pairs of indices; equal files carry the same digest."""
    places: dict[str, list[int]] = {}
    for index, digest in enumerate(digests):
        places.setdefault(digest, []).append(index)
    different = [(one, other) for one, other in known if one != other]
    return {(min(a, b), max(a, b)) for one, other in different for a in places.get(one, ()) for b in places.get(other, ())}


def _glance(pixels: Pictures, first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Which candidates are worth a full comparison: their thumbnails of 16 x 16 agree, in the whole and in detail."""
    seen = np.unique(np.concatenate([first, second]))
    thumbs = np.array(list(decoding.in_order(lambda index: _thumbnail(pixels[index]), seen)), dtype=np.float16)
    place = np.searchsorted(seen, np.stack([first, second]))
    worth_it = np.zeros(len(first), dtype=bool)
    for start in range(0, len(first), PAIRS_AT_ONCE):
        block = slice(start, start + PAIRS_AT_ONCE)
        one, other = (thumbs[place[side, block]].astype(np.float32) for side in (0, 1))
        one = np.where(mirrored[block, None, None, None, None], one[:, :, :, ::-1], one)
        whole, detail = np.einsum("pkhwc,pkhwc->kp", one, other)
        worth_it[block] = (whole >= GLANCE_WHOLE) & (detail >= GLANCE_DETAIL)
    return worth_it


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    """A picture of 16 x 16 and its detail, each centred and of norm 1: shape (2, 16, 16, 3)."""
    side = SIDE // 2
    small = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX), dtype=np.float32)
    coarse = small.reshape(COARSE, 2, COARSE, 2, 3).mean(axis=(1, 3)).repeat(2, axis=0).repeat(2, axis=1)
    both = _normed(np.stack([small, small - coarse]).reshape(2, -1))
    return both.reshape(2, side, side, 3).astype(np.float16)


def _alike(views: Callable[[int], np.ndarray], candidate: tuple[int, int, bool]) -> bool:
    """Whether the whole of one picture, mirrored if asked, correlates with the whole or a crop of the other."""
    first, second, mirrored = candidate
    one, other = views(first), views(second)
    flip = _mirrored if mirrored else np.asarray
    return bool(max((other @ flip(one[0])).max(), (one @ flip(other[0])).max()) >= SAME)


def _mirrored(view: np.ndarray) -> np.ndarray:
    return view.reshape(SIDE, SIDE, 3)[:, ::-1].ravel()


def _views(pixels: np.ndarray) -> np.ndarray:
    """Detail of a picture's crops, the whole picture first, centred and of norm 1: shape (n_views, values)."""
    picture = Image.fromarray(pixels).reduce(2)
    width = float(picture.width)
    boxes = [(0.0, 0.0, width, width)]
    for kept in CROPS:
        spare = width * (1 - kept)
        starts = (0.0, 0.5 * spare, spare)
        boxes += [(left, top, width - (spare - left), width - (spare - top)) for left in starts for top in starts]
    return _normed(np.stack([_detail(picture, box) for box in boxes]))


def _detail(picture: Image.Image, box: tuple[float, float, float, float]) -> np.ndarray:
    fine = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
    coarse = fine.resize((COARSE, COARSE), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return (np.asarray(fine, dtype=np.float32) - np.asarray(coarse, dtype=np.float32)).ravel()


def _normed(values: np.ndarray) -> np.ndarray:
    """Rows centred and of norm 1.

    A blank picture has no detail: its norm stays near 0 and it is like no other (equal files are caught by digest).
    """
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1.0)
