import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt import classifiers, losses, metrics
from keras_lt.classifiers import (
    CLASSIFIERS,
    LearnableWeightScaling,
    TauNormalizedDense,
    fold,
    tau_normalize,
)
from keras_lt.classifiers.chunks import parts_of

GOLDEN = pathlib.Path(__file__).parent / "golden"
D, C = 5, 3
KERNEL = np.random.default_rng(1).normal(size=(D, C)).astype(np.float32)
BIAS = np.array([0.5, -1.0, 2.0], np.float32)
FEATURES = np.random.default_rng(2).normal(size=(12, D)).astype(np.float32)
LABELS = np.arange(12) % C


def dense(kernel, bias):
    """Stage one's classifier with these weights."""
    layer = keras.layers.Dense(kernel.shape[1], name="classifier")
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel, bias])
    return layer


HEAD = dense(KERNEL, BIAS)


def golden(name):
    return np.load(GOLDEN / f"{name}.npz")


def built(name):
    """The last of a classifier's candidates, adapted where it needs to be."""
    _, layer = CLASSIFIERS[name](HEAD, seed=0)[-1]
    if hasattr(layer, "adapt"):
        layer.adapt(FEATURES, LABELS)
    return layer


def four_accuracies(logits, data):
    accuracy = metrics.shot_accuracy(np.argmax(logits, 1), data["test_labels"], data["class_counts"])
    return [accuracy[name] for name in ("many", "medium", "few", "all")]


# Every classifier ends as a Keras layer from features to logits.


@pytest.mark.versions
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_survives_saving(name, tmp_path):
    layer = built(name)
    model = keras.Sequential([keras.Input((D,)), layer])
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(restored(FEATURES), layer(FEATURES))
    assert [w.shape for w in restored.trainable_weights] == [w.shape for w in layer.trainable_weights]


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("joint", []),
        ("ncm", []),
        ("crt", [(D, C), (C,)]),
        ("fine_tune", [(D, C), (C,)]),
        ("tau_norm", []),
        ("tau_search", []),
        ("tau_learned", [()]),
        ("lws", [(C,)]),
        ("lws_tau_norm", [(C,)]),
        ("cosine", [(D, C)]),
    ],
)
def test_only_what_the_paper_trains_is_trainable(name, shapes):
    for _, layer in CLASSIFIERS[name](HEAD, seed=0):
        assert [w.shape for w in layer.trainable_weights] == shapes


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_are_float32_under_mixed_precision(name):
    half = keras.ops.cast(FEATURES, "bfloat16")
    expected = built(name)(keras.ops.cast(half, "float32"))
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = built(name)
        logits = layer(half)
    finally:
        keras.config.set_dtype_policy(policy)
    assert logits.dtype == "float32"
    np.testing.assert_array_equal(logits, expected)


def test_candidates_stand_for_every_choice_and_put_the_paper_s_first():
    choices = {
        name: [choice for choices, _ in CLASSIFIERS[name](HEAD, seed=0) for choice in choices]
        for name in CLASSIFIERS.keys() - {"tau_search"}  # which is asked one by one
    }
    assert choices["joint"] == choices["crt"] == choices["lws"] == [{}]
    assert choices["tau_learned"] == [{"tau": 1.0}]
    assert choices["lws_tau_norm"] == [{"start_tau": 0.5}, {"start_tau": 1.0}]
    assert choices["cosine"] == [{"scale": 16.0}]
    assert [choice["tau"] for choice in choices["tau_norm"]] == [tenths / 10 for tenths in range(21)]
    assert choices["ncm"][0] == {"transform": "cl2n", "distance": "l2"}
    assert len({tuple(choice.values()) for choice in choices["ncm"]}) == 9


@pytest.mark.parametrize(("name", "layers"), [("tau_norm", 1), ("logit_adjusted", 1), ("ncm", 3)])
def test_one_layer_and_one_product_stand_for_a_whole_grid(name, layers):
    found = CLASSIFIERS[name](HEAD, seed=0)
    assert len(found) == layers
    for choices, layer in found:
        if hasattr(layer, "adapt"):
            layer.adapt(FEATURES, LABELS)
        for choice in choices:
            shared = layer.shared(FEATURES)
            logits = layer.logits_by(**choice)(shared)
            (part,) = parts_of(shared)
            in_numpy = layer.logits_by(keras.ops.convert_to_numpy, **choice)(part)
            assert isinstance(in_numpy, np.ndarray)
            np.testing.assert_allclose(in_numpy, logits, rtol=1e-5, atol=1e-6)
            alone = type(layer).from_config({**layer.get_config(), **choice})
            alone.build(FEATURES.shape)
            alone.set_weights(layer.get_weights())
            np.testing.assert_array_equal(logits, alone(FEATURES))


@pytest.mark.parametrize(
    "name", ["joint", "crt", "fine_tune", "tau_norm", "tau_search", "tau_learned", "lws", "lws_tau_norm"]
)
def test_a_linear_head_folds_into_one_dense_layer(name):
    layer = built(name)
    if name == "lws":
        layer.scales.assign([2.0, 0.5, -1.0])
    kernel, bias = fold(layer)
    np.testing.assert_allclose(FEATURES @ kernel + bias, layer(FEATURES), rtol=1e-4, atol=1e-5)


def test_other_heads_do_not_fold():
    softmax = keras.layers.Dense(C, activation="softmax")
    softmax.build((None, D))
    quantised = dense(KERNEL, BIAS)
    quantised.quantize("int8")  # whose kernel is whole numbers, to be scaled
    assert fold(softmax) is fold(quantised) is fold(built("ncm")) is fold(built("cosine")) is None


@pytest.mark.parametrize(
    ("kernel", "bias", "message"),
    [
        (KERNEL[0], BIAS, "kernel must be"),
        (KERNEL, BIAS[:2], "bias must be"),
        (KERNEL, KERNEL, "bias must be"),
    ],
)
def test_a_dense_layer_that_does_not_fit_is_refused(kernel, bias, message):
    with pytest.raises(ValueError, match=message):
        LearnableWeightScaling.from_dense(kernel, bias)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_what_starts_from_dense_weights_refuses_another_head(name):
    head = built("cosine")
    if CLASSIFIERS[name].starts_from == "affine":
        with pytest.raises(ValueError, match=r"start from a dense layer.*CosineDense"):
            CLASSIFIERS[name](head, seed=0)
    else:
        assert CLASSIFIERS[name](head, seed=0)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("features", [FEATURES[:, :1], FEATURES[:, :4], FEATURES.reshape(2, 6, D), FEATURES[0]])
def test_features_of_another_width_or_rank_are_refused(name, features):
    """Those of width 1 NCM would take for D equal ones."""
    layer = built(name)
    if features.shape[-1] == D and isinstance(getattr(layer, "head", layer), keras.layers.Dense):
        return  # Keras's own takes any rank
    with pytest.raises(ValueError, match="incompatible with the layer"):
        layer(features)


# Joint and cRT


def test_joint_is_stage_one_s_classifier():
    np.testing.assert_allclose(built("joint")(FEATURES), FEATURES @ KERNEL + BIAS, rtol=1e-5, atol=1e-6)


def test_crt_draws_weight_and_bias_from_the_seed_within_one_over_root_width():
    layer = classifiers.fresh_dense(100, 400, seed=3)
    for weight in layer.get_weights():
        assert np.abs(weight).max() <= 0.1
        assert weight.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.1)
        assert weight.mean() == pytest.approx(0, abs=0.01)
    again, other = classifiers.fresh_dense(100, 400, seed=3), classifiers.fresh_dense(100, 400, seed=4)
    np.testing.assert_array_equal(again.kernel, layer.kernel)
    np.testing.assert_array_equal(again.bias, layer.bias)
    assert not np.isclose(other.kernel, layer.kernel).all()
    assert not np.isclose(layer.bias, layer.kernel[0]).all()


# Tau-normalisation


def test_tau_normalisation_by_hand():
    kernel = [[3.0, 0.0], [4.0, 2.0]]  # columns of norm 5 and 2
    np.testing.assert_allclose(tau_normalize(kernel, 0), kernel)
    np.testing.assert_allclose(tau_normalize(kernel, 1), [[0.6, 0.0], [0.8, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(tau_normalize(kernel, 2), [[0.12, 0.0], [0.16, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(tau_normalize(kernel, 0.5)[:, 1], [0.0, np.sqrt(2)], rtol=1e-6)


def test_a_class_without_weights_stays_at_zero():
    np.testing.assert_array_equal(tau_normalize([[0.0, 3.0], [0.0, 4.0]], 1.5)[:, 0], [0.0, 0.0])


def test_tau_normalised_accuracies_are_the_reference_ones_for_all_21_taus():
    data = golden("tau_norm")
    [(choices, layer)] = CLASSIFIERS["tau_norm"](dense(data["kernel"], data["bias"]), seed=0)
    shared = layer.shared(data["test_features"])
    logits = [layer.logits_by(**choice)(shared) for choice in choices]
    np.testing.assert_allclose([four_accuracies(one, data) for one in logits], data["many_medium_few_all"])
    np.testing.assert_allclose(logits[7], data["logits_tau_0_7"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("peak", [0.0, 0.63, 0.7, 1.234, 2.0])
def test_a_search_ends_beside_the_peak_that_a_grid_can_only_surround(peak):
    [(search, _)] = CLASSIFIERS["tau_search"](HEAD, seed=0)
    asked, tried = next(search), []
    assert [choice["tau"] for choice in asked] == [tenths / 10 for tenths in range(21)]
    while asked:
        tried += [choice["tau"] for choice in asked]
        try:
            asked = search.send([1 - abs(choice["tau"] - peak) for choice in asked])
        except StopIteration:
            break
    assert abs(min(tried, key=lambda tau: abs(tau - peak)) - peak) < 0.005
    assert len(tried) < 32
    assert 0.0 <= min(tried) <= max(tried) <= 2.0


def test_scales_may_start_where_tau_normalisation_has_them():
    for choices, layer in CLASSIFIERS["lws_tau_norm"](dense(KERNEL, np.zeros(C, np.float32)), seed=0):
        normalized = TauNormalizedDense.from_dense(KERNEL, choices[0]["start_tau"])
        np.testing.assert_allclose(layer(FEATURES), normalized(FEATURES), rtol=1e-5, atol=1e-6)


def test_the_bias_is_dropped_for_every_tau_so_that_tau_0_is_not_joint():
    layer = TauNormalizedDense.from_dense(KERNEL, 0.0)
    np.testing.assert_allclose(built("joint")(FEATURES) - layer(FEATURES), np.tile(BIAS, (12, 1)), atol=1e-5)


def test_a_learned_tau_is_the_only_trainable_weight_and_has_the_gradient_of_calculus():
    layer = TauNormalizedDense.from_dense([[3.0, 0.0], [4.0, 2.0]], 0.5, learned=True)  # columns of norm 5 and 2
    with tf.GradientTape() as tape:
        logit = layer(np.array([[1.0, 0.0]], np.float32))[0, 0]  # 3 / 5 ** tau
    (weight,) = layer.trainable_weights
    assert logit.numpy() == pytest.approx(3 / np.sqrt(5))
    assert tape.gradient(logit, weight.value).numpy() == pytest.approx(-3 / np.sqrt(5) * np.log(5), rel=1e-5)


def test_a_learned_tau_finds_the_power_that_the_data_were_made_with():
    """Labels are of the classifier with tau 0.7; in float32 and with noise that is within a tenth."""
    rng = np.random.default_rng(0)
    kernel = (rng.normal(size=(8, 6)) * 2.0 ** np.arange(-3, 3)).astype(np.float32)
    features = rng.normal(size=(20_000, 8)).astype(np.float32) * 3
    noise = rng.gumbel(size=(20_000, 6))  # the arg max of logits + Gumbel noise follows their softmax
    labels = np.argmax(features @ np.asarray(tau_normalize(kernel, 0.7)) + noise, axis=-1)
    model = keras.Sequential([keras.Input((8,)), TauNormalizedDense.from_dense(kernel, 1.5, learned=True)])
    model.compile(keras.optimizers.Adam(0.05), losses.PerExampleLoss(losses.cross_entropy))
    model.fit(features, labels, batch_size=500, epochs=3, verbose=0)
    assert model.layers[0].get_config()["tau"] == pytest.approx(0.7, abs=0.1)


def test_a_learned_tau_is_saved_as_it_was_learned(tmp_path):
    layer = TauNormalizedDense.from_dense(KERNEL, 1.0, learned=True)
    layer.tau.assign(0.3)
    model = keras.Sequential([keras.Input((D,)), layer])
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert restored.get_config()["tau"] == pytest.approx(0.3)
    plain = TauNormalizedDense.from_dense(KERNEL, 0.3)
    np.testing.assert_allclose(restored(FEATURES), plain(FEATURES), rtol=1e-6)


@pytest.mark.parametrize(("labels", "end"), [([0, 1], 0.0), ([1, 0], 2.0)])
def test_a_learned_tau_stays_in_the_range_of_the_grid(labels, end):
    """Right logits want to be larger and so tau smaller, wrong ones the opposite; the step is far too long."""
    model = keras.Sequential([keras.Input((2,)), TauNormalizedDense.from_dense(np.eye(2) * 4, 1.0, learned=True)])
    model.compile(keras.optimizers.SGD(1e6), losses.PerExampleLoss(losses.cross_entropy))
    model.fit(np.eye(2), np.array(labels), verbose=0)
    assert model.layers[0].get_config()["tau"] == end


@pytest.mark.parametrize("tau", [-0.1, np.nan])
def test_tau_is_not_negative(tau):
    with pytest.raises(ValueError, match="tau must be finite and at least 0"):
        tau_normalize(KERNEL, tau)
    with pytest.raises(ValueError, match="tau must be finite and at least 0"):
        TauNormalizedDense(C, tau)


# Learnable weight scaling


def test_lws_starts_as_stage_one_s_classifier():
    np.testing.assert_array_equal(LearnableWeightScaling.from_dense(KERNEL, BIAS)(FEATURES), built("joint")(FEATURES))


def test_lws_logits_and_their_gradient_by_the_scales_are_the_reference_ones():
    data = golden("lws")
    layer = LearnableWeightScaling.from_dense(data["kernel"], data["bias"])
    layer.scales.assign(data["scales"])
    np.testing.assert_allclose(layer(data["test_features"]), data["logits"], rtol=1e-4, atol=1e-4)
    with tf.GradientTape() as tape:
        logits = layer(data["train_features"])
        loss = tf.reduce_mean(losses.cross_entropy(data["train_labels"], logits))
    gradient = tape.gradient(loss, layer.scales.value)
    np.testing.assert_allclose(gradient, data["scale_gradient"], rtol=1e-4, atol=1e-6)


def test_lws_trains_its_scales_alone_also_after_a_reload(tmp_path):
    model = keras.Sequential([keras.Input((D,)), LearnableWeightScaling.from_dense(KERNEL, BIAS)])
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    model.compile("sgd", losses.PerExampleLoss(losses.cross_entropy))
    model.fit(FEATURES, LABELS, verbose=0)
    np.testing.assert_array_equal(model.layers[0].kernel, KERNEL)
    np.testing.assert_array_equal(model.layers[0].bias, BIAS)
    assert (model.layers[0].scales.numpy() != 1).all()
