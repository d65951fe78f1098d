import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from stages import stats
from stages.lib import duplicates

SIDE = 256
DISTANCE = 16


def square(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def smaller(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width // 2, picture.height // 2))


def jpeg(picture: Image.Image) -> Image.Image:
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=40)
    return Image.open(held).convert("RGB")


def mirrored(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cropped(picture: Image.Image) -> Image.Image:
    return picture.crop((round(picture.width * 0.05), 0, picture.width, round(picture.height * 0.95)))


def watermarked(picture: Image.Image) -> Image.Image:
    marked = picture.copy()
    ImageDraw.Draw(marked).text((marked.width * 0.6, marked.height * 0.85), "example.com", fill="white", font_size=24)
    return marked


def linked(pixels: list[np.ndarray], digests: list[str] | None = None) -> set[tuple[int, int]]:
    signatures = np.array([duplicates.signature(one) for one in pixels], dtype=np.uint64)
    found = duplicates.pairs(np.stack(pixels), signatures, digests or [str(i) for i in range(len(pixels))], DISTANCE)
    assert found.shape == (len(found), 2)
    assert found.tolist() == sorted(map(list, {tuple(pair) for pair in found.tolist()}))
    return {(a, b) for a, b in found.tolist()}


@pytest.mark.parametrize("change", [smaller, jpeg, mirrored, cropped, watermarked], ids=lambda change: change.__name__)
def test_copies_are_found_and_different_pictures_are_not(picture, change):
    originals = [picture(seed, (400, 320)) for seed in range(12)]
    pixels = [square(one) for one in originals] + [square(change(one)) for one in originals]
    assert linked(pixels) == {(i, i + 12) for i in range(12)}


def test_different_pictures_are_not_linked_even_if_every_pair_is_compared(picture):
    pixels = np.stack([square(picture(seed)) for seed in range(30)])
    same_hash = np.zeros((30, 2), dtype=np.uint64)
    assert len(duplicates.pairs(pixels, same_hash, [str(i) for i in range(30)], DISTANCE)) == 0


def test_distance_decides_which_pairs_are_compared(picture):
    pixels = np.stack([square(picture(0))] * 2)
    signatures = np.array([[0, 2**64 - 1], [0b111, 2**64 - 1]], dtype=np.uint64)
    assert len(duplicates.pairs(pixels, signatures, ["a", "b"], 2)) == 0
    assert duplicates.pairs(pixels, signatures, ["a", "b"], 3).tolist() == [[0, 1]]


def test_candidates_beyond_one_block_of_rows():
    rng = np.random.default_rng(0)
    signatures = rng.integers(0, 2**63, size=(600, 2), dtype=np.uint64)
    signatures[590, 0] = signatures[3, 0] ^ np.uint64(0b101)
    signatures[300, 1] = signatures[599, 0]
    expected = []
    for a in range(600):
        for b in range(a + 1, 600):
            for flipped in (False, True):
                if (int(signatures[a, int(flipped)]) ^ int(signatures[b, 0])).bit_count() <= 8:
                    expected.append((a, b, flipped))
    assert expected == [(3, 590, False), (300, 599, True)]
    everything = np.ones(600, dtype=bool)
    assert [values.tolist() for values in duplicates._candidates(signatures, 8, everything)] == [
        [3, 300],
        [590, 599],
        [False, True],
    ]
    only = np.arange(600) == 590
    assert [values.tolist() for values in duplicates._candidates(signatures, 8, only)] == [[3], [590], [False]]


def test_blank_pictures_are_not_linked_unless_the_files_are_equal():
    rng = np.random.default_rng(0)
    blank = [np.full((SIDE, SIDE, 3), grey, dtype=np.uint8) for grey in (255, 255, 0, 128)]
    noisy = [(250 + rng.integers(0, 4, size=(SIDE, SIDE, 3))).astype(np.uint8) for _ in range(2)]
    assert linked(blank + noisy) == set()
    assert linked(blank + noisy, ["a", "a", "b", "c", "d", "e"]) == {(0, 1)}


def test_equal_files_are_linked_whatever_their_hash():
    blank = [np.zeros((SIDE, SIDE, 3), dtype=np.uint8)] * 5
    plain = [0, 0xFFFFFFFF, 0, 0xFFFF0000FFFF0000, 0xFF00FF00FF00FF00]  # the equal files differ in 32 bits
    far = np.array([(value, 0) for value in plain], dtype=np.uint64)
    found = duplicates.pairs(np.stack(blank), far, ["a", "b", "c", "b", "b"], DISTANCE)
    assert duplicates.groups(5, found).tolist() == [0, 1, 2, 1, 1]


class Counted(list):
    """Pictures that count how often they are asked for."""

    asked = 0

    def __getitem__(self, index):
        self.asked += 1
        return super().__getitem__(index)


def test_settled_files_are_not_compared_again_and_the_result_is_the_same(picture):
    changes = [smaller, jpeg, mirrored, cropped, watermarked]
    originals = [picture(seed, (200, 160)) for seed in range(10)]
    pixels = Counted([square(one) for one in originals] + [square(change(originals[i])) for i, change in enumerate(changes)])
    pixels.append(pixels[0])  # an equal file
    digests = [f"d{index}" for index in range(15)] + ["d0"]
    signatures = np.array([duplicates.signature(one) for one in pixels], dtype=np.uint64)
    afresh = duplicates.pairs(pixels, signatures, digests, DISTANCE)
    assert {(0, 15), (1, 11), (2, 12), (3, 13), (4, 14), (0, 10)} <= set(map(tuple, afresh.tolist()))
    for known in (range(16), range(12), range(5, 16)):
        digests_known = frozenset(digests[index] for index in known)
        inside = [(digests[a], digests[b]) for a, b in afresh.tolist() if {digests[a], digests[b]} <= digests_known]
        pixels.asked = 0
        again = duplicates.pairs(pixels, signatures, digests, DISTANCE, duplicates.Settled(digests_known, tuple(inside)))
        assert again.tolist() == afresh.tolist()
        assert (pixels.asked == 0) == (len(known) == 16)


def test_glance_against_a_slow_loop(picture):
    pixels = [square(picture(seed)) for seed in range(6)] + [square(mirrored(picture(0))), square(cropped(picture(1)))]
    first, second = np.triu_indices(8, 1)
    for flip in (False, True):
        expected = []
        for a, b in zip(first, second, strict=True):
            whole, detail = [], []
            for index in (a, b):
                small = np.asarray(Image.fromarray(pixels[index]).resize((16, 16), Image.Resampling.BOX)).astype(float)
                if flip and index == a:
                    small = small[:, ::-1]
                low = np.zeros_like(small)
                for y in range(16):
                    for x in range(16):
                        low[y, x] = small[y // 2 * 2 : y // 2 * 2 + 2, x // 2 * 2 : x // 2 * 2 + 2].mean(axis=(0, 1))
                whole.append(small.ravel())
                detail.append((small - low).ravel())
            expected.append(np.corrcoef(whole)[0, 1] >= 0.7 and np.corrcoef(detail)[0, 1] >= 0.4)
        found = duplicates._glance(pixels, first, second, np.full(len(first), flip))
        assert found.tolist() == expected
        assert 0 < sum(expected) < len(expected)


def test_one_image():
    assert linked([np.zeros((SIDE, SIDE, 3), dtype=np.uint8)]) == set()


def test_signature_of_the_mirror_image_is_the_other_way_round(picture):
    drawn = square(picture(4))
    plain, flipped = duplicates.signature(drawn)
    assert duplicates.signature(drawn[:, ::-1].copy()) == (flipped, plain)
    assert 0 <= plain < 2**64
    assert plain != flipped


@pytest.mark.parametrize("seed", range(5))
def test_groups_against_slow_union(seed):
    rng = np.random.default_rng(seed)
    found = np.sort(rng.integers(0, 60, size=(10 + 10 * seed, 2)), axis=1)
    found = found[found[:, 0] < found[:, 1]]
    group = list(range(60))
    changed = True
    while changed:
        changed = False
        for a, b in found.tolist():
            if group[a] != group[b]:
                group[a] = group[b] = min(group[a], group[b])
                changed = True
    assert duplicates.groups(60, found).tolist() == group


def test_groups_without_pairs():
    assert duplicates.groups(4, np.empty((0, 2), dtype=int)).tolist() == [0, 1, 2, 3]


def test_agreement_against_slow_loop():
    rng = np.random.default_rng(0)
    targets = rng.choice([0.0, 1.0, np.nan], size=(40, 4), p=[0.5, 0.3, 0.2])
    targets[:, 3] = np.nan
    found = np.array([(a, b) for a in range(40) for b in range(a + 1, 40) if (a * b) % 7 == 1])
    both, agree, expected = duplicates.agreement(targets, found)
    for column in range(4):
        values = targets[:, column].tolist()
        known = [value for value in values if value in (0.0, 1.0)]
        pairs = [(values[a], values[b]) for a, b in found.tolist() if values[a] in (0.0, 1.0) and values[b] in (0.0, 1.0)]
        rate = sum(known) / len(known) if known else 0.0
        assert both[column] == len(pairs)
        assert agree[column] == sum(a == b for a, b in pairs)
        assert expected[column] == pytest.approx(sum(rate * rate + (1 - rate) * (1 - rate) for _ in pairs))
    assert both[0] > agree[0] > 0  # the example holds both


def test_agreement_without_pairs():
    both, agree, expected = duplicates.agreement(np.array([[1.0], [np.nan]]), np.empty((0, 2), dtype=int))
    assert (both.tolist(), agree.tolist(), expected.tolist()) == ([0], [0], [0.0])


def test_validate_twice_on_hashes_that_look_like_numbers(run_stage, tmp_path):
    """The hash of a blank picture is 8000000000000000: text, also when it is read back from images.csv."""
    for index, grey in enumerate((255, 128)):
        Image.new("RGB", (300, 300), (grey,) * 3).save(tmp_path / f"{index}.png")
    (tmp_path / "labels.txt").write_text("0.png 1\n1.png 0\n")
    given = ("--images", tmp_path, "--labels", tmp_path / "labels.txt", "--out", tmp_path / "clean", "--metrics", tmp_path / "m")
    for _ in range(2):
        done = run_stage("validate", *given)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folds", [1, 5])
def test_no_copy_crosses_a_split(picture, folds):
    originals = [picture(seed, (200, 160)) for seed in range(25)]
    changes = [smaller, jpeg, mirrored, cropped, watermarked]
    pixels = [square(one) for one in originals]
    pixels += [square(changes[index % 5](one)) for index, one in enumerate(originals[:15])]
    signatures = np.array([duplicates.signature(one) for one in pixels], dtype=np.uint64)
    names = [f"{index}.jpg" for index in range(40)]
    group = duplicates.groups(40, duplicates.pairs(np.stack(pixels), signatures, names, DISTANCE))
    targets = np.random.default_rng(0).choice([0.0, 1.0, np.nan], size=(40, 3))
    settings = SimpleNamespace(folds=folds, seed=0, stats=SimpleNamespace(val=0.2, test=0.2))
    part = stats.parts(targets, group, names, settings)
    assert len(set(part)) == (3 if folds == 1 else 5)
    assert [part[index] for index in range(15)] == [part[25 + index] for index in range(15)]
