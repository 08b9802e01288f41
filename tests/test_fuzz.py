"""What comes in through the doors, at random: an answer or a ValueError, never another error or much memory."""

import contextlib
import dataclasses
import datetime
import io
import resource
import tracemalloc

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from absl import flags
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_lt import config
from keras_lt.classifiers import CLASSIFIERS, HEADS
from keras_lt.config import RunConfig
from keras_lt.datasets import DATASETS
from keras_lt.datasets.examining import examine_encoded
from keras_lt.datasets.image_files import read_class_names, read_list
from keras_lt.datasets.own_images import csv, lists
from keras_lt.losses import LOSSES
from keras_lt.methods import METHODS
from keras_lt.registry import parsed, split
from keras_lt.samplers import SAMPLERS
from keras_lt.serving import export_saved_model, read_prior

NO_HANG = datetime.timedelta(seconds=20)  # of one that takes a hundredth, on a machine that does much else
QUICK = settings(
    max_examples=60, deadline=NO_HANG, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LONG = settings(QUICK, max_examples=5000, derandomize=False)
REFUSED = contextlib.suppress(ValueError)
TEXT = st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-16"))
LINES = st.lists(
    st.sampled_from(["a.jpg 0", "b 1", "", " ", "x 99999999999999999999", "é 2", "a -1", "a,b", "path,label"])
)
ANY = TEXT | LINES.map(lambda lines: "\n".join(lines).encode("utf-8-sig"))


@contextlib.contextmanager
def bounded(most):
    """Inside, no more bytes are asked for than those."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


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


MEMBERS = [*SAMPLERS, *LOSSES, *CLASSIFIERS, *HEADS, *METHODS, *DATASETS, "uniform", "backward", "keras_hub/", "hf:"]
KEYS = ["q", "gamma", "scale", "ratio", "epochs", "experts", "tau", "classes", "seed", "image", "sampler", "", "é"]
ODD = ["", "0", "-1", "nan", "-inf", "1e400", "9" * 30, "0x1", "1_0", "٣", "\0", "\ud800", "\n", ":=", "~", "/dev/zero"]
PARAMETER = st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from([*ODD, "0.5", "3"]) | st.text(max_size=6))
NESTED = st.builds(lambda *words: ":".join(words), st.sampled_from(MEMBERS), PARAMETER)
VALUE = st.sampled_from([*ODD, *MEMBERS]) | NESTED | st.builds("{}:{}".format, NESTED, PARAMETER) | st.text(max_size=20)
FIELDS = [field.name for field in dataclasses.fields(RunConfig)]
ASKED = st.dictionaries(st.sampled_from(FIELDS), VALUE, min_size=1, max_size=3)


def ask(asked):
    """Flags as a command reads them: taken, or refused in a line."""
    flag_values, said = flags.FlagValues(), ""
    config.define_flags(flag_values)
    try:
        flag_values(["command", *(f"--{name}={value}" for name, value in asked.items())])
        assert isinstance(config.from_flags(flag_values), RunConfig)
    except (ValueError, ImportError) as refused:  # or a library is not there
        said = str(refused)
    except flags.Error:
        pass  # absl's, whose lines are its own
    assert "\n" not in said


@QUICK
@given(asked=ASKED)
def test_flags(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    with bounded(10_000_000):
        ask(asked)


@pytest.mark.exhaustive
@LONG
@given(asked=ASKED)
def test_many_flags(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    ask(asked)


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


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """What a SavedModel answers to the bytes of an image, whatever they are: its `ok`, and whether all is finite."""
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs)))
    about = {"class_names": "ab", "image_size": 8, "mean": (0,) * 3, "std": (1,) * 3, "on_bad_request": "nan"}
    loaded = tf.saved_model.load(export_saved_model(network, tmp_path_factory.mktemp("served") / "1", **about))

    def answer(encoded):
        rows = loaded.signatures["serving_default"](image_bytes=tf.constant([encoded]))
        return bool(rows["ok"][0]), bool(np.isfinite(rows["logits"]).all())

    return answer


def serve(served, encoded):
    """Bytes that training would be refused may be served, but what it takes is, and what is not served says so."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB: TensorFlow's memory is not Python's
    ok, finite = served(encoded)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000_000
    assert ok == finite
    with REFUSED:
        examine_encoded(encoded)
        assert ok


@QUICK
@given(encoded=image_bytes())
def test_images_that_are_served(served, encoded):
    serve(served, encoded)


@pytest.mark.exhaustive
@LONG
@given(encoded=image_bytes())
def test_many_images_that_are_served(served, encoded):
    serve(served, encoded)


def test_a_label_of_billions_costs_no_memory(tmp_path):
    (tmp_path / "train.txt").write_text("a.jpg 0\nb.jpg 5000000000\n")
    (tmp_path / "test.txt").write_text("a.jpg 0\n")
    with bounded(10_000_000), pytest.raises(ValueError, match=r"train\.txt:2: 'b\.jpg 5000000000'"):
        lists(str(tmp_path))
