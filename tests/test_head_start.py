"""Heads that begin by texts of the class names, on tiny nets of images and text that spell letter by letter."""

import keras
import numpy as np
import pytest

from keras_lt import backbones, files, train
from keras_lt.backbones.text_towers import TextTower
from keras_lt.classifiers import cosine
from keras_lt.config import RunConfig
from keras_lt.config.checks import check_with_data
from keras_lt.datasets import LongTailed, Split
from keras_lt.distribution import make_strategy
from keras_lt.features import FeatureSet
from keras_lt.recipe import Recipe
from keras_lt.run import Run
from keras_lt.stages import learn_classifier, learn_representation
from keras_lt.work_folder import RUN_FILES
from tests import tiny_presets
from tests.conftest import some_of
from tests.tiny_presets import LETTERS

NAMES = ("dark", "light_grey", "ox")
IMAGES = np.random.default_rng(0).standard_normal((4, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The name of a preset of CLIP's class, and its net."""
    net = tiny_presets.clip()
    return tiny_presets.spelled(net, tmp_path_factory.mktemp("clip")), net


def spelled_ids(sentence, *, length=32):
    """CLIP's: a letter's number, 27 more at the end of a word; 55 before the sentence, 56 after it, zeros behind."""
    ids = [55]
    for word in sentence.replace(".", " .").split():
        ids += [LETTERS.index(letter) + len(LETTERS) * (i == len(word) - 1) for i, letter in enumerate(word)]
    return np.pad([*ids, 56], (0, length - len(ids) - 1))


def test_a_text_is_the_projected_sentence_brought_back_through_the_projection_of_images(clip):
    name, net = clip
    sentences = ("a photo of a dark.", "a photo of a light grey.", "a photo of a ox.")
    texts = np.asarray(net.get_text_embeddings(np.stack([spelled_ids(sentence) for sentence in sentences])))
    found = backbones.find(name).available().text_tower(NAMES)
    np.testing.assert_allclose(found, texts @ net.vision_projection.kernel.numpy().T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", some_of(["clip", "siglip", "metaclip2"], "clip"))
def test_zero_shot_cosines_are_the_net_s_own(family, tmp_path):
    """With a projection that turns and no more; then it leaves lengths alone, and image and text compare as there."""
    net = getattr(tiny_presets, family)()
    if family != "siglip":
        rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((16, 16)))
        net.vision_projection.kernel.assign(rotation)
    name = tiny_presets.spelled(net, tmp_path)
    entry = backbones.find(name).available()
    head = cosine.fresh_class_means(16, 3, seed=0, scale=1.0)
    head.adapt(entry.text_tower(NAMES), np.arange(3))
    cosines = head(entry(image_size=32, pretrained="imagenet")(IMAGES))

    sentences = [f"a photo of a {said}." for said in ("dark", "light grey", "ox")]
    tokens = entry.text_tower._tokens()({"prompts": sentences, "images": None}, sequence_length=32)["token_ids"]
    images, texts = net.get_vision_embeddings(IMAGES), net.get_text_embeddings(tokens)
    images, texts = (np.asarray(keras.ops.normalize(vectors, axis=-1)) for vectors in (images, texts))
    np.testing.assert_allclose(cosines, images @ texts.T, rtol=1e-4, atol=1e-5)


def text_run(name, arrays_dir, **changes):
    (arrays_dir / "classes.txt").write_text("\n".join(NAMES))
    base = {"dataset": "arrays", "data_dir": str(arrays_dir), "workdir": str(arrays_dir.parent / "run")}
    base |= {"backbone": name, "pretrained": "imagenet", "train_parts": "classifier", "head_start": "text"}
    return RunConfig(**base | {"batch_size": 16} | changes)


def test_what_the_tower_said_lies_in_the_run(clip, arrays_dir, monkeypatch):
    name, _ = clip
    config = text_run(name, arrays_dir, classifiers=("joint", "lift:head_start=class_means"))
    assert config.systems == ["joint", "lift:head_start=class_means", "zero_shot"]
    check_with_data(config, config.load_data(), make_strategy("none"))
    texts = Run.of(config).features("text")
    np.testing.assert_allclose(texts.features, backbones.find(name).available().text_tower(NAMES), atol=1e-6)
    np.testing.assert_array_equal(texts.labels, range(3))
    monkeypatch.setattr(TextTower, "__call__", lambda *arguments: pytest.fail("it was asked again"))
    np.testing.assert_array_equal(Run.of(config).features("text").features, texts.features)
    assert not files.unknown_in(config.folder, RUN_FILES)  # so that --overwrite removes them too


@pytest.mark.exhaustive
def test_a_run_with_a_text_start(clip, arrays_dir, monkeypatch):
    """At learning rate 0 heads stay where they begin; the tower is asked once, what it said is in the run."""
    name, _ = clip
    config = text_run(
        name,
        arrays_dir,
        stage_one="features",
        head="class_mean_cosine",
        loss="logit_adjustment",
        classifiers=("joint", "lift", "class_mean_cosine"),
        epochs=1,
        classifier_epochs=1,
        steps_per_epoch=1,
        learning_rate=0.0,
        kept_epoch="last",
    )
    assert config.systems == ["joint", "lift", "class_mean_cosine", "zero_shot"]
    directions = backbones.find(name).available().text_tower(NAMES).T
    directions /= np.linalg.norm(directions, axis=0)
    train.stage_one(Run.of(config), make_strategy("none"))
    monkeypatch.setattr(TextTower, "__call__", lambda *arguments: pytest.fail("it was asked again"))
    run, kernels = Run.of(config), {}
    features = {split: run.features(split) for split in ("train", "val", "text")}
    for system in config.systems:
        train.stage_two(system, run, features, make_strategy("none"))
        kernels[system] = run.classifier(system).model.layers[-1].kernel.numpy()
    for by_text in ("joint", "lift", "zero_shot"):
        np.testing.assert_allclose(kernels[by_text], directions, rtol=1e-5, atol=1e-6)
    assert np.abs(kernels["class_mean_cosine"] - directions).max() > 0.1


@pytest.mark.exhaustive
def test_adapters_begin_under_a_text_start(clip, data):
    name, _ = clip
    recipe = Recipe(epochs=1, steps_per_epoch=1, batch_size=8, learning_rate=0.0, head_start="text")
    parts = {"train_parts": "lora:rank=2", "head": "class_mean_cosine"}
    learned = learn_representation(data, backbone=name, pretrained="imagenet", recipe=recipe, **parts)
    directions = backbones.find(name).available().text_tower(data.class_names).T
    np.testing.assert_allclose(
        learned.head.kernel, directions / np.linalg.norm(directions, axis=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("spelled", {"pretrained": ""}, r"both towers as they were trained together.*Received: pretrained=none"),
        ("spelled", {"names": "0\n1\n2"}, r"reads the names of the classes.*Received: 0, 1, 2"),
        ("spelled", {"names": "n01440764\nn01443537\nn01484850"}, r"names of the classes.*Received: n01440764"),
        ("clip", {}, r"head_start=text needs a preset with a tokenizer\. Received: backbone=keras_hub/"),
        ("vit", {}, r"needs a net with a text tower: a CLIP, MetaCLIP 2 or SigLIP of keras_hub\. Received: backbone="),
        ("tiny", {"pretrained": "", "classifiers": ("zero_shot",)}, r"with a text tower.*Received: backbone=tiny"),
    ],
)
def test_what_has_no_texts_is_refused_before_any_work(preset, changes, message, clip, arrays_dir):
    folder = arrays_dir.parent
    name, net = clip
    if preset == "tiny":
        name = preset
    elif preset != "spelled":
        (net if preset == "clip" else tiny_presets.vit()).save_to_preset(folder / preset)
        name = f"keras_hub/{folder / preset}"
    changes = {"names": "\n".join(NAMES), **changes}
    names = changes.pop("names")
    config = text_run(name, arrays_dir, **changes)
    (arrays_dir / "classes.txt").write_text(names)
    with pytest.raises(ValueError, match=message) as refused:
        check_with_data(config, config.load_data(), make_strategy("none"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_start": "text"}, r"--head_start would do nothing in this run: no head of it begins as directions"),
        ({"head_start": "words"}, r"head_start must be one of class_means, text\. Received: head_start='words'"),
        ({"classifiers": ("zero_shot",)}, r"zero_shot is of the net as it is.*Received: .*--train_parts=all"),
        (
            {"classifiers": ("crt:head_start=text",)},
            "crt has the parameters .*Received: classifier=crt:head_start=text",
        ),
    ],
)
def test_a_text_start_that_nothing_takes_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**changes)


def test_features_of_ones_own_may_have_texts_too():
    """Two short stages: the head of the first begins by text as well, and stays there at learning rate 0."""
    rng = np.random.default_rng(0)
    features = {split: FeatureSet(rng.normal(size=(6, 4)), np.arange(6) % 3) for split in ("train", "val", "test")}
    data = LongTailed(
        "own", **{split: Split(of.features, of.labels) for split, of in features.items()}, class_names=NAMES
    )
    del features["test"]
    with pytest.raises(ValueError, match=r"features must be of train, val, text\. Received: train, val"):
        learn_classifier("zero_shot", features=features)
    features["text"] = FeatureSet(np.diag([2.0, 3.0, 4.0, 5.0])[:3], np.arange(3))
    learned = learn_classifier("zero_shot", features=features)
    np.testing.assert_allclose(learned.model.layers[-1].kernel, np.eye(4)[:, :3], atol=1e-6)
    recipe = Recipe(epochs=1, batch_size=6, learning_rate=0.0, head_start="text", jit_compile="false")
    first = learn_representation(data, head="class_mean_cosine", recipe=recipe, text=features["text"])
    np.testing.assert_allclose(first.head.kernel, np.eye(4)[:, :3], atol=1e-6)
