import numpy as np
import pytest

from stages.lib import pixels
from stages.lib.errors import UserError


def made(count: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(count, side, side, 3), dtype=np.uint8)


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        pixels.read(path)
    return str(caught.value)


@pytest.mark.parametrize("count", [1, 9, 10, 99, 1234])
def test_round_trip_of_a_count_known_only_at_the_end(tmp_path, count):
    images = made(count, side=4)
    assert pixels.write(tmp_path / "p.npy", (image for image in images), 4) == count
    np.testing.assert_array_equal(pixels.read(tmp_path / "p.npy"), images)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), images)  # a plain .npy, all of it in place
    assert (tmp_path / "p.npy").stat().st_size == 128 + images.nbytes


def test_images_that_are_not_contiguous(tmp_path):
    images = made(3)
    pixels.write(tmp_path / "p.npy", (image[:, ::-1] for image in images), 8)
    np.testing.assert_array_equal(pixels.read(tmp_path / "p.npy"), images[:, :, ::-1])


def test_store_is_mapped_and_read_only(tmp_path):
    pixels.write(tmp_path / "p.npy", made(3), 8)
    store = pixels.read(tmp_path / "p.npy")
    assert isinstance(store, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store[0] = 0


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


@pytest.mark.parametrize(
    "content",
    [np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 9, 3), np.uint8), np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)],
    ids=["floats", "not square", "no colour", "four channels"],
)
def test_another_array(tmp_path, content):
    np.save(tmp_path / "p.npy", content)
    assert "does not hold square RGB images" in refusal(tmp_path / "p.npy")
