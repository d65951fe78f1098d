import numpy as np
import pytest

from stages.lib import splits

NAN = np.nan
SHARES = (0.6, 0.2, 0.2)


def made(n_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Targets of six attributes, the last with few positives; every row its own group."""
    rng = np.random.default_rng(seed)
    rates = np.array([0.5, 0.3, 0.2, 0.1, 0.4, 0.0])
    targets = (rng.random((n_rows, 6)) < rates).astype(float)
    targets[rng.choice(n_rows, size=max(1, n_rows // 50), replace=False), 5] = 1
    targets[rng.random((n_rows, 6)) < np.array([0.0, 0.1, 0.2, 0.3, 0.6, 0.0])] = NAN
    return targets, np.arange(n_rows), [f"{i:05}.jpg" for i in range(n_rows)]


def deviations(targets: np.ndarray, parts: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Count minus wanted count, for each part, attribute and class (absent, present, unknown)."""
    table = []
    for part, share in enumerate(shares):
        for column in targets.T:
            for is_class in (column == 0, column == 1, np.isnan(column)):
                table.append((is_class & (parts == part)).sum() - share * is_class.sum())
    return np.array(table)


@pytest.mark.parametrize("shares", [SHARES, (0.8, 0.1, 0.1), (1 / 3,) * 3, (0.2,) * 5], ids=len)
@pytest.mark.parametrize("n_rows", [100, 500])
def test_shares_are_met_for_every_class(n_rows, shares):
    targets, groups, names = made(n_rows)
    parts = splits.deal(targets, groups, names, shares, seed=0)
    found = np.abs(deviations(targets, parts, shares))
    assert found.max() <= 3
    assert found.mean() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_rare_attribute_and_sizes_are_spread(seed):
    targets, groups, names = made(500, seed)  # 10 positives
    parts = splits.deal(targets, groups, names, SHARES, seed)
    rare = [int((targets[parts == part, 5] == 1).sum()) for part in range(3)]
    assert sum(rare) == 10
    assert np.abs(np.array(rare) - [6, 2, 2]).max() <= 1
    assert np.abs(np.bincount(parts, minlength=3) - [300, 100, 100]).max() <= 2


@pytest.mark.parametrize(("n_rows", "n_rare"), [(100, 3), (500, 10)])
@pytest.mark.parametrize("seed", range(10))
def test_five_positives_are_dealt_three_one_one(n_rows, n_rare, seed):
    rng = np.random.default_rng(seed)
    targets = np.concatenate([rng.random((n_rows, 6)) < 0.4, np.zeros((n_rows, n_rare))], axis=1).astype(float)
    for column in range(6, 6 + n_rare):
        targets[rng.choice(n_rows, 5, replace=False), column] = 1
    parts = splits.deal(targets, np.arange(n_rows), [str(row) for row in range(n_rows)], SHARES, seed)
    for column in range(6, 6 + n_rare):
        assert np.bincount(parts[targets[:, column] == 1], minlength=3).tolist() == [3, 1, 1]


def test_better_than_chance():
    rng = np.random.default_rng(0)
    dealt, by_chance = [], []
    for seed in range(5):
        targets, groups, names = made(300, seed)
        dealt.append(np.abs(deviations(targets, splits.deal(targets, groups, names, SHARES, seed), SHARES)).mean())
        for _ in range(50):
            drawn = rng.permutation(np.repeat([0, 1, 2], [180, 60, 60]))
            by_chance.append(np.abs(deviations(targets, drawn, SHARES)).mean())
    assert np.mean(dealt) < 0.4 * np.mean(by_chance)
    assert np.max(dealt) < np.min(by_chance)


def test_seed_decides():
    data = made(250)
    first = splits.deal(*data, SHARES, seed=0)
    np.testing.assert_array_equal(splits.deal(*data, SHARES, seed=0), first)
    others = [splits.deal(*data, SHARES, seed=seed) for seed in (1, 2)]
    assert all((other != first).mean() > 0.2 for other in others)


@pytest.mark.parametrize("added", [1, 37, 100, 250])
def test_added_rows_leave_full_blocks_as_they_were(added):
    targets, groups, names = made(200 + added)
    groups[120], groups[199] = 7, 150
    before = splits.deal(targets[:200], groups[:200], names[:200], SHARES, seed=3)
    np.testing.assert_array_equal(splits.deal(targets, groups, names, SHARES, seed=3)[:200], before)


def test_added_duplicate_joins_its_group_and_moves_nothing():
    targets, groups, names = made(230)
    before = splits.deal(targets[:200], groups[:200], names[:200], SHARES, seed=0)
    groups[200:230] = np.arange(30) * 5
    after = splits.deal(targets, groups, names, SHARES, seed=0)
    np.testing.assert_array_equal(after[:200], before)
    np.testing.assert_array_equal(after[200:], before[np.arange(30) * 5])


@pytest.mark.parametrize("shares", [SHARES, (0.25,) * 4], ids=len)
def test_groups_stay_whole_and_shares_are_still_met(shares):
    targets, _, names = made(400)
    rng = np.random.default_rng(1)
    groups = np.sort(rng.integers(0, 150, size=400))
    rng.shuffle(groups)  # members in different blocks
    parts = splits.deal(targets, groups, names, shares, seed=0)
    for group in np.unique(groups):
        assert len(set(parts[groups == group])) == 1
    assert np.abs(np.bincount(parts, minlength=len(shares)) - 400 * np.array(shares)).max() <= 8


def test_roles_of_hold_out():
    parts = np.array(["val", "train", "test", "train"])
    assert splits.roles(parts, 1, 0).tolist() == ["val", "train", "test", "train"]


@pytest.mark.parametrize("folds", [3, 5, 12])
def test_roles_of_folds(folds):
    parts = np.random.default_rng(0).integers(0, folds, size=120)
    tested = np.zeros(120, dtype=int)
    for fold in range(folds):
        found = splits.roles(parts, folds, fold)
        assert found.tolist() == splits.roles(parts.astype(str), folds, fold).tolist()  # as a table may hold them
        assert set(found) == {"train", "val", "test"}
        tested += found == "test"
        for number in range(folds):
            same = set(found[parts == number])
            expected = "test" if number == fold else "val" if number == (fold + 1) % folds else "train"
            assert same == {expected}
    np.testing.assert_array_equal(tested, 1)


def test_all_unknown():
    _, groups, names = made(100)
    parts = splits.deal(np.full((100, 3), NAN), groups, names, SHARES, seed=0)
    assert np.bincount(parts, minlength=3).tolist() == [60, 20, 20]


def test_one_row_and_one_big_group():
    assert splits.deal(np.array([[1.0]]), np.array([0]), ["a"], SHARES, 0).tolist() == [0]
    targets, _, names = made(250)
    assert splits.deal(targets, np.zeros(250, dtype=int), names, SHARES, 0).tolist() == [0] * 250


def test_every_attribute_in_one_class_only():
    _, groups, names = made(50)
    for value in (0.0, 1.0):
        parts = splits.deal(np.full((50, 2), value), groups, names, SHARES, seed=0)
        assert np.bincount(parts, minlength=3).tolist() == [30, 10, 10]


def test_names_break_ties():
    targets, groups, names = made(250)
    first = splits.deal(targets, groups, names, SHARES, seed=0)
    other = splits.deal(targets, groups, [f"other_{name}" for name in names], SHARES, seed=0)
    assert (other != first).mean() > 0.2


def test_the_same_on_any_machine():
    targets = np.array([[1, 0], [0, np.nan], [0, 1], [1, 1], [0, 0], [0, 0], [np.nan, 0], [1, 0], [0, 1], [0, 0]], dtype=float)
    found = splits.deal(targets, np.array([0, 1, 2, 3, 4, 4, 6, 7, 8, 9]), [f"{row}.jpg" for row in range(10)], SHARES, seed=0)
    assert found.tolist() == [2, 0, 2, 1, 0, 0, 0, 0, 0, 1]
