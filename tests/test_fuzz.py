"""What comes in through the doors, at random: an answer or a ValueError, never another error or much memory."""

import contextlib
import io
import tracemalloc

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_lt.datasets.examining import examine_encoded
from keras_lt.datasets.image_lists import read_class_names, read_list
from keras_lt.datasets.own_images import csv, lists
from keras_lt.registry import parsed, split
from keras_lt.serving import read_prior

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
REFUSED = contextlib.suppress(ValueError)
TEXT = st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-16"))
LINES = st.lists(
    st.sampled_from(["a.jpg 0", "b 1", "", " ", "x 99999999999999999999", "é 2", "a -1", "a,b", "path,label"])
)
ANY = TEXT | LINES.map(lambda lines: "\n".join(lines).encode("utf-8-sig"))


@QUICK
@given(content=ANY)
def test_lists_and_class_names(tmp_path, content):
    for name in ("train.txt", "test.txt", "classes.txt", "train.csv", "test.csv"):
        (tmp_path / name).write_bytes(content)
    for read in (read_class_names, lambda folder: read_list(folder / "train.txt"), lists, csv):
        with REFUSED:
            read(tmp_path)


@QUICK
@given(
    content=ANY | st.sampled_from([b"[[1]]", b"[0.5, 0.5]", b"{}", b"[" * 2000, b"nan 1", b"1e400 0", b'["a", null]'])
)
def test_priors(tmp_path, content):
    (tmp_path / "prior").write_bytes(content)
    with REFUSED:
        assert read_prior(str(tmp_path / "prior"), [3, 1]).sum() == pytest.approx(1, abs=0.01)


@QUICK
@given(text=st.text(alphabet="aq:=.0-9e_ é", max_size=20))
def test_parameters_of_members(text):
    with REFUSED:
        parsed(split(text)[1], {"q": 0.5, "a": 1}, of=text, name="x")


def image_bytes():
    """Bytes, and images with some of their bytes changed or cut off."""
    whole = []
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP"):
        file = io.BytesIO()
        PIL.Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, kind)
        whole.append(file.getvalue())

    def changed(image, place, byte, end):
        return image[: place % len(image)] + byte + image[place % len(image) + len(byte) : len(image) - end]

    broken = st.builds(
        changed, st.sampled_from(whole), st.integers(0, 400), st.binary(min_size=1, max_size=6), st.integers(0, 40)
    )
    return st.binary(max_size=40) | broken


@QUICK
@given(encoded=image_bytes())
def test_images(encoded):
    with REFUSED:
        (height, width), orientation, _ = examine_encoded(encoded)
        assert 0 < height * width <= 100_000_000
        assert 1 <= orientation <= 8


def test_a_label_of_billions_costs_no_memory(tmp_path):
    (tmp_path / "train.txt").write_text("a.jpg 0\nb.jpg 5000000000\n")
    (tmp_path / "test.txt").write_text("a.jpg 0\n")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"train\.txt:2: 'b\.jpg 5000000000'"):
        lists(str(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
