"""OLTR: the reference's numbers, on two backends, and a second stage that begins where the first one ended."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_lt import backbones
from keras_lt.config import RunConfig
from keras_lt.distribution import MultiHost, make_strategy
from keras_lt.features import extract_features
from keras_lt.methods import METHODS, oltr
from keras_lt.methods.oltr import MetaEmbedding, ModulatedAttention, centroid_loss
from keras_lt.recipe import Recipe
from keras_lt.stages import learn_representation, load_classifier
from tests.conftest import killed_in_second_epoch, some_of
from tests.programs import run

REFUSED = {
    ("resampling", "smote"): r"method=oltr trains its classifier on images, .* Received: resampling=smote",
    ("loss", "ldam"): "method=oltr has a classifier of its own.* Received: loss=ldam",
}
STAGE_TWO = Recipe(epochs=2, batch_size=12, learning_rate=0.05, sampler="class_balanced")


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(pathlib.Path(__file__).parent / "golden" / "oltr.npz"))


def gradients(function, *arguments):
    """Of a scalar by each argument, on whichever backend this is."""
    if keras.backend.backend() == "jax":
        import jax  # noqa: PLC0415 - an optional backend

        return jax.grad(function, argnums=tuple(range(len(arguments))))(*arguments)
    import tensorflow as tf  # noqa: PLC0415 - not on the other one

    arguments = [tf.convert_to_tensor(argument) for argument in arguments]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = function(*arguments)
    return tape.gradient(value, arguments)


def meta_embedding(golden):
    layer = MetaEmbedding(24)
    layer.build((None, 32))
    layer.centroids.assign(golden["centroids"])
    layer.kernel.assign(golden["cosnorm_kernel"])
    for part in ("hallucinator", "selector"):
        getattr(layer, part).set_weights([golden[f"{part}_kernel"], golden[f"{part}_bias"]])
    return layer


def attention(golden):
    layer = ModulatedAttention()
    layer.build((None, 7, 7, 16))
    for part, name in {"value": "g", "query": "theta", "key": "phi"}.items():
        kernel = golden[f"attention_{name}_weight"][:, :, 0, 0].T
        getattr(layer, part).set_weights([kernel, golden[f"attention_{name}_bias"]])
    layer.context.set_weights([golden["attention_conv_mask_weight"][:, :, 0, 0].T])
    spatial = golden["attention_fc_spatial_weight"].reshape(49, 16, 7, 7)  # of a feature map with channels first
    layer.spatial.set_weights([spatial.transpose(2, 3, 1, 0).reshape(-1, 49), golden["attention_fc_spatial_bias"]])
    return layer


def test_golden_meta_embedding(golden):
    layer, features = meta_embedding(golden), golden["features"]
    np.testing.assert_allclose(layer(features), golden["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.infused(features), golden["infused"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.cosine_norm(features), golden["cosnorm_logits_on_features"], rtol=1e-4, atol=1e-5)


def test_golden_attention(golden):
    channels_last = golden["attention_input"].transpose(0, 2, 3, 1)
    expected = golden["attention_output"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(attention(golden)(channels_last), expected, rtol=1e-4, atol=1e-6)


def test_golden_centroid_loss_and_its_gradients(golden):
    labels = golden["centroid_loss_labels"]
    features, centroids = golden["centroid_loss_features"], golden["centroids"]
    losses = centroid_loss(labels, features, centroids)
    assert losses.shape == (64,)
    np.testing.assert_allclose(np.mean(losses), golden["centroid_loss"], rtol=1e-5)
    ours = gradients(lambda f, c: ops.mean(centroid_loss(labels, f, c)), features, centroids)
    for name, gradient in zip(("feature", "centroid"), ours, strict=True):
        expected = golden[f"centroid_loss_{name}_gradient"]
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_centroid_loss_by_hand_where_others_are_near():
    """Two classes on a line: f = 1 and 3 of class 0 at 0; class 1 at 2 has no example.

    Attract: (1 + 9) / 2 / 2 = 2.5. The other centroid is 1 and 1 away, so .01 (10 - 2 / (2 * 2)) = .095.
    By f: (f - c) / 2 = .5, 1.5 from the first, -.01 * 2 (f - 2) / 4 = .005, -.005 from the second.
    By c_0: -(1 + 3) / 2 divided by 1 + 2 examples. By c_1: -.01 * 2 ((2 - 1) + (2 - 3)) / 4 = 0.
    """
    labels, features = np.array([0, 0]), np.array([[1.0], [3.0]], np.float32)
    centroids = np.array([[0.0], [2.0]], np.float32)
    assert np.mean(centroid_loss(labels, features, centroids)) == pytest.approx(2.595)
    by_features, by_centroids = gradients(lambda f, c: ops.mean(centroid_loss(labels, f, c)), features, centroids)
    np.testing.assert_allclose(by_features, [[0.505], [1.495]], rtol=1e-5)
    np.testing.assert_allclose(by_centroids, [[-2 / 3], [0]], rtol=1e-5, atol=1e-7)


def test_logits_have_no_gradient_to_the_memory_and_a_finite_one_on_it(golden):
    layer = meta_embedding(golden)

    def logits(features, memory):
        with keras.StatelessScope(state_mapping=[(layer.centroids, memory)]):
            return ops.sum(layer(features)[:, 0])

    on_a_centroid = np.concatenate([golden["features"][:2], golden["centroids"][:1], np.zeros((1, 32), np.float32)])
    by_features, by_memory = gradients(logits, on_a_centroid, golden["centroids"])
    assert np.isfinite(by_features).all()
    assert np.any(by_features)
    assert by_memory is None or not np.any(by_memory)


@pytest.mark.exhaustive
def test_the_layers_compute_the_same_on_jax():
    pytest.importorskip("jax")
    program = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    words = ["-q", "-k", "golden", "-p", "no:cacheprovider", __file__]
    done = run(program, *words, environment={"KERAS_BACKEND": "jax"})
    assert done.returncode == 0, done.stdout[-3000:]
    assert "3 passed" in done.stdout


@pytest.mark.versions
@pytest.mark.parametrize(
    ("make", "shape"), [(meta_embedding, (40, 32)), (attention, (2, 7, 7, 16))], ids=["meta_embedding", "attention"]
)
def test_the_layers_survive_saving(golden, tmp_path, make, shape):
    inputs = keras.Input(shape[1:])
    model = keras.Model(inputs, make(golden)(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(again(x), model(x))


def test_attention_needs_a_size():
    with pytest.raises(ValueError, match="fixed size"):
        ModulatedAttention()(keras.Input((None, None, 4)))


@pytest.fixture(scope="module")
def representation(data, tiny_backbone):
    return learn_representation(data, backbone=tiny_backbone, recipe=Recipe(epochs=6, batch_size=16, learning_rate=0.1))


@pytest.fixture(scope="module")
def features(data, representation):
    splits = {"train": data.train, "val": data.val}
    return {
        name: extract_features(representation.backbone, split, representation.preprocessing)
        for name, split in splits.items()
    }


def learn(representation, data, features, **options):
    return oltr.learn_classifier(
        representation,
        data,
        features=features,
        **{"recipe": STAGE_TWO, "seed": 3, "strategy": make_strategy(), "folder": None} | options,
    )


def head_of(classifier):
    return classifier.model.get_layer("classifier")


def class_means(features):
    return np.stack([features.features[features.labels == c].mean(0) for c in range(3)])


@pytest.mark.parametrize(
    "options",
    some_of([{}, {"train_backbone": False, "backbone_rate": 0.01, "centroids_rate": 1.0}], {}),
    ids=["imagenet_lt", "places_lt"],
)
def test_it_begins_where_stage_one_ended_with_three_learning_rates(
    data, representation, features, monkeypatch, options
):
    """Without a step taken, the memory is the class means and the hallucinator stage one's classifier."""
    begun = {}
    monkeypatch.setattr(oltr, "fit_on_images", lambda model, *_, **arguments: begun.update(arguments, model=model))
    classifier = learn(representation, data, features, **options)
    head = head_of(classifier)
    np.testing.assert_allclose(head.centroids, class_means(features["train"]), rtol=1e-5, atol=1e-6)
    for own, stage_one in zip(head.hallucinator.get_weights(), representation.head.get_weights(), strict=True):
        np.testing.assert_array_equal(own, stage_one)

    rates = {
        variable.path: begun["multipliers"].get(variable.path, 1.0) for variable in begun["model"].trainable_variables
    }
    backbone = [variable.path for variable in classifier.backbone.trainable_variables]
    assert len(rates) == len(begun["model"].trainable_variables)  # no path is there twice
    assert {rates.pop(path) for path in backbone} == {options.get("backbone_rate", 0.1)}
    assert rates.pop(head.centroids.path) == options.get("centroids_rate", 0.1)
    assert set(rates.values()) == {1.0}
    assert len(rates) == 5  # hallucinator and selector with their biases, the kernel
    trained = {path.split("/")[0] for path in backbone}
    assert trained == {"attention"} if options else trained > {"attention"}


@pytest.mark.exhaustive
def test_it_trains_a_copy_end_to_end_and_is_kept_whole(data, representation, features, tmp_path):
    before = [weight.copy() for weight in representation.model.get_weights()]
    classifier = learn(representation, data, features, folder=tmp_path / "checkpoints")
    for weight, old in zip(representation.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert not np.allclose(head_of(classifier).centroids, class_means(features["train"]), atol=1e-3)
    stem, original = (backbone.get_layer("stem") for backbone in (classifier.backbone, representation.backbone))
    assert not np.array_equal(stem.get_weights()[0], original.get_weights()[0])
    assert classifier.val["class_mean"] > 0.9
    assert classifier.candidates == [classifier.val]

    classifier.save(tmp_path, representation)
    backbone, model = load_classifier(tmp_path, representation)
    own = extract_features(backbone, data.val, representation.preprocessing)
    logits = classifier.model(extract_features(classifier.backbone, data.val, representation.preprocessing).features)
    np.testing.assert_allclose(model(own.features), logits, rtol=1e-5, atol=1e-5)
    hits = np.argmax(model(own.features), 1) == own.labels  # val is balanced
    assert np.mean(hits) == pytest.approx(classifier.val["class_mean"])


def test_what_stage_one_froze_stays_frozen(tiny_backbone):
    backbone = backbones.build(tiny_backbone, image_size=8)
    backbone.get_layer("stem").trainable = False
    copy = oltr.with_attention(backbone)
    assert not copy.get_layer("stem").trainable_variables
    assert copy.get_layer("layer1").trainable_variables


@pytest.mark.exhaustive
def test_a_killed_fit_ends_where_an_uninterrupted_one_does(data, representation, features, tmp_path, monkeypatch):
    whole = learn(representation, data, features)
    with killed_in_second_epoch(monkeypatch):
        learn(representation, data, features, folder=tmp_path)
    resumed = learn(representation, data, features, folder=tmp_path)
    for one, other in ((resumed.model, whole.model), (resumed.backbone, whole.backbone)):
        for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_what_it_cannot_be_trained_by_is_refused(data, representation, features):
    with pytest.raises(ValueError, match=r"method=oltr trains on one host. Received: several hosts"):
        learn(representation, data, features, strategy=object.__new__(MultiHost))
    mixing = dataclasses.replace(representation.preprocessing, mixup=0.2)
    with pytest.raises(ValueError, match=r"method=oltr has mixup=0 and no other. Received: mixup=0.2"):
        learn(dataclasses.replace(representation, preprocessing=mixing), data, features)
    for changes, message in REFUSED.items():
        recipe = dataclasses.replace(STAGE_TWO, **dict([changes]))
        with pytest.raises(ValueError, match=message):
            learn(representation, data, features, recipe=recipe)


def vectors():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, keras.layers.Flatten()(images), name="flat")


class Tokens(keras.Model):
    def call(self, images):
        return keras.ops.reshape(images, (-1, 64, 3))

    def get_config(self):
        return {"name": self.name}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": object.__new__(MultiHost)}, "method=oltr trains on one host"),
        ({"mixup": 0.2}, "method=oltr has mixup=0"),
        ({"backbone": vectors()}, r"must give a feature map \[B,h,w,D\].* Received: backbone=flat, pooling=none"),
        ({"stage_one": "features", "train_parts": "classifier"}, "stage_one=features fits a classifier alone"),
    ],
)
def test_what_stage_two_could_not_do_is_refused_before_stage_one(data, monkeypatch, options, message):
    monkeypatch.setattr(keras.Model, "fit", None)
    with pytest.raises(ValueError, match=message):
        learn_representation(data, hooks=METHODS["oltr"](), **options)


def test_tokens_of_a_class_of_ones_own_are_refused_before_stage_one(data, monkeypatch):
    """Such a model says what it gives only once it is built."""
    monkeypatch.setattr(keras.Model, "fit", None)
    tokens = keras.saving.register_keras_serializable("tests_oltr")(Tokens)(name="tokens")
    tokens(np.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match="that pools a feature map"):
        learn_representation(data, hooks=METHODS["oltr"](), backbone=tokens, recipe=Recipe(batch_size=16))


def test_flags_that_its_classifier_cannot_take_are_refused():
    for (name, value), message in REFUSED.items():
        with pytest.raises(ValueError, match=message):
            RunConfig(method="oltr", classifiers=(), **{f"classifier_{name}": value})
