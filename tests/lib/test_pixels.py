import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from stages.lib import decoding, files, pixels
from stages.lib.errors import UserError


def made(count: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(count, side, side, 3), dtype=np.uint8)


def all_of(path) -> np.ndarray:
    store = pixels.read(path)
    return np.stack([store[index] for index in range(len(store))])


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        pixels.read(path)
    return str(caught.value)


@pytest.mark.parametrize("count", [1, 9, 10, 99, 1234])
def test_round_trip_of_a_count_known_only_at_the_end(tmp_path, count):
    images = made(count, side=4)
    assert pixels.write(tmp_path / "p.npy", (image for image in images), 4) == count
    np.testing.assert_array_equal(all_of(tmp_path / "p.npy"), images)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), images)  # a plain .npy, all of it in place
    assert (tmp_path / "p.npy").stat().st_size == 128 + images.nbytes


def test_images_that_are_not_contiguous(tmp_path):
    images = made(3)
    pixels.write(tmp_path / "p.npy", (image[:, ::-1] for image in images), 8)
    np.testing.assert_array_equal(all_of(tmp_path / "p.npy"), images[:, :, ::-1])


def test_store_is_read_by_picture_and_read_only(tmp_path):
    images = made(3)
    pixels.write(tmp_path / "p.npy", images, 8)
    store = pixels.read(tmp_path / "p.npy")
    assert (len(store), store.shape) == (3, (3, 8, 8, 3))
    np.testing.assert_array_equal(store[np.int64(1)], images[1])
    with pytest.raises(ValueError, match="read-only"):
        store[0][:] = 0
    for outside in (3, -1):
        with pytest.raises(IndexError, match="of 3"):
            store[outside]


def test_memory_does_not_grow_with_the_pictures_read(tmp_path):
    """A memory map would: 100 MB of pictures, read once each, must leave less than a fifth of that behind."""
    pixels.write(tmp_path / "p.npy", (made(1, side=256)[0] for _ in range(512)), 256)
    code = (
        "import resource, sys; from pathlib import Path; from stages.lib import pixels; store = pixels.read(Path(sys.argv[1]));"
        "store[0].sum(); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "[int(store[index].sum()) for index in range(len(store))];"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown = subprocess.run([sys.executable, "-c", code, tmp_path / "p.npy"], capture_output=True, text=True, check=True)
    assert int(grown.stdout) < 20_000  # kB


def test_many_threads_share_a_store(tmp_path):
    images = made(64, side=32)
    pixels.write(tmp_path / "p.npy", images, 32)
    store = pixels.read(tmp_path / "p.npy")
    order = [index % 64 for index in range(640)]
    for index, found in zip(order, decoding.in_order(store.__getitem__, order, 8), strict=True):
        np.testing.assert_array_equal(found, images[index])


def test_store_goes_to_another_process_by_its_path(tmp_path):
    images = made(3)
    pixels.write(tmp_path / "p.npy", images, 8)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pixels.read(tmp_path / "p.npy")))[2], images[2])


def test_store_that_is_replaced_does_not_mix_in(tmp_path):
    first, second = made(3), made(3)[::-1]
    pixels.write(tmp_path / "p.npy", first, 8)
    store = pixels.read(tmp_path / "p.npy")
    with files.replacing(tmp_path / "p.npy") as temporary:
        pixels.write(temporary, second, 8)
    np.testing.assert_array_equal(store[0], first[0])


def test_store_that_is_cut_off_while_it_is_read(tmp_path):
    pixels.write(tmp_path / "p.npy", made(3), 8)
    store = pixels.read(tmp_path / "p.npy")
    os.truncate(tmp_path / "p.npy", 128 + 300)
    with pytest.raises(UserError, match="shorter"):
        store[2]


def test_images_are_written_as_they_come(tmp_path):
    images = made(6, side=256)

    def source():
        for index, image in enumerate(images):
            assert (tmp_path / "p.npy").stat().st_size >= index * image.nbytes  # those before are not held back
            yield image

    assert pixels.write(tmp_path / "p.npy", source(), 256) == 6


def test_missing_store(tmp_path):
    message = refusal(tmp_path / "p.npy")
    assert "p.npy is missing" in message
    assert "dvc repro validate" in message


@pytest.mark.parametrize("kept", [0, 5, 100, 128 + 300])
def test_cut_off_store(tmp_path, kept):
    pixels.write(tmp_path / "p.npy", made(3), 8)
    (tmp_path / "p.npy").write_bytes((tmp_path / "p.npy").read_bytes()[:kept])
    message = refusal(tmp_path / "p.npy")
    assert "p.npy is damaged" in message
    assert "dvc repro --force validate" in message


def test_no_store_at_all(tmp_path):
    (tmp_path / "p.npy").write_text("<html>")
    assert "is damaged" in refusal(tmp_path / "p.npy")


def test_an_archive_of_arrays(tmp_path):
    with open(tmp_path / "p.npy", "wb") as opened:
        np.savez(opened, made(3))
    assert "is damaged" in refusal(tmp_path / "p.npy")


@pytest.mark.parametrize(
    "content",
    [np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 9, 3), np.uint8), np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)],
    ids=["floats", "not square", "no colour", "four channels"],
)
def test_another_array(tmp_path, content):
    np.save(tmp_path / "p.npy", content)
    assert "does not hold square RGB images" in refusal(tmp_path / "p.npy")
