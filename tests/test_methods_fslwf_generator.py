"""FSLwF's generator of weights and its head, beside the authors' code."""

import pathlib

import keras
import numpy as np
import pytest

from keras_lt.methods import fslwf
from keras_lt.methods.fslwf import CosineHead, WeightGenerator

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "fslwf.npz")
ONE_HOT = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
EXAMPLES = np.array([[2, 0], [0, 5], [0, 3]], np.float32)  # directions (1, 0), (0, 1) and (0, 1)


def golden_generator(keys):
    generator = WeightGenerator(len(keys))
    generator.build((None, keys.shape[1]))
    query = GOLDEN["attblock_queryLayer_weight"].T, GOLDEN["attblock_queryLayer_bias"]
    phi = GOLDEN["wnLayerFavg_weight"], GOLDEN["wnLayerWatt_weight"]
    generator.set_weights([*query, keys, GOLDEN["attblock_scale_att"][0], *phi])
    return generator


def test_generated_weights_are_the_reference_s():
    examples, base = (GOLDEN["novel_features"], GOLDEN["novel_one_hot"]), GOLDEN["base_ids"]
    expected = GOLDEN["classification_weights"][len(base) :]
    alone = golden_generator(GOLDEN["attblock_wkeys"][base])(*examples, GOLDEN["weight_base"][base])
    np.testing.assert_allclose(alone, expected, atol=1e-6)
    among_all = golden_generator(GOLDEN["attblock_wkeys"])(
        *examples, GOLDEN["weight_base"], np.isin(np.arange(24), base)
    )
    np.testing.assert_allclose(among_all, expected, atol=1e-6)


def test_scores_are_the_reference_s():
    head = CosineHead(24)
    head.build((None, 32))
    head.set_weights([GOLDEN["classification_weights"].T, GOLDEN["scale_cls"][0], GOLDEN["bias"][0]])
    np.testing.assert_allclose(head(GOLDEN["test_features"]), GOLDEN["scores"], atol=1e-5)


def test_scale_starts_at_ten_and_the_bias_is_inside_of_it():
    head = fslwf.fresh_head(2, 1, seed=0)
    assert float(head.scale) == 10
    head.set_weights([np.array([[3.0], [4.0]]), np.array(2.0), np.array(0.5)])
    np.testing.assert_allclose(head(np.array([[10.0, 0.0]], np.float32)), [[2 * (0.6 + 0.5)]], rtol=1e-6)


def small_generator(base_classes, **weights):
    generator = WeightGenerator(base_classes)
    generator.build((None, 2))
    for name, value in weights.items():
        getattr(generator, name).assign(value)
    return generator


def test_without_attention_weights_are_the_mean_directions_scaled():
    generator = small_generator(3, phi_avg=[3.0, 2.0], phi_att=[0.0, 0.0])
    np.testing.assert_allclose(generator(EXAMPLES, ONE_HOT, np.eye(3, 2)), [[1.5, 1], [0, 2]], rtol=1e-6)


def test_the_only_base_class_that_is_present_gets_all_attention():
    generator = small_generator(2, phi_avg=[0.0, 0.0], phi_att=[1.0, 5.0])
    generated = generator(EXAMPLES, ONE_HOT, np.array([[1.0, 0.0], [3.0, 4.0]]), np.array([False, True]))
    np.testing.assert_allclose(generated, [[0.6, 4.0]] * 2, rtol=1e-6)


def test_an_example_attends_by_the_softmax_of_scaled_cosines():
    identity = {"query_kernel": np.eye(2), "keys": [[7.0, 0.0], [0.0, 9.0]], "attention_scale": np.log(3.0)}
    generator = small_generator(2, phi_avg=[0.0, 0.0], phi_att=[1.0, 1.0], **identity)
    # exp(log 3 * 1) to exp(log 3 * 0) is 3 : 1, and the first class's two examples attend to one each.
    expected = [[0.5, 0.5], [0.25, 0.75]]
    np.testing.assert_allclose(generator(EXAMPLES, ONE_HOT, np.eye(2)), expected, rtol=1e-6)


def test_a_new_generator_is_the_reference_s():
    generator = WeightGenerator(1000)
    generator.build((None, 50))
    query, bias, keys, scale, avg, att = generator.get_weights()
    assert 0 < np.abs(query - np.eye(50)).max() < 0.01
    assert keys.std() == pytest.approx((2 / 50) ** 0.5, rel=0.05)
    assert scale == 30
    assert not bias.any()
    np.testing.assert_array_equal([avg, att], np.ones((2, 50)))


@pytest.mark.versions
def test_the_layers_survive_saving(tmp_path):
    inputs = [keras.Input((2,)), keras.Input((2,)), keras.Input((2,))]
    model = keras.Model(inputs, small_generator(3)(*inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    arguments = [EXAMPLES, ONE_HOT, np.eye(3, 2, dtype=np.float32)]
    np.testing.assert_array_equal(again(arguments), model(arguments))


def test_classes_taken_for_novel_are_scored_by_generated_weights_and_novel_ones_not_at_all():
    head, generator = fslwf.fresh_head(2, 4, seed=0), small_generator(4)
    model = fslwf.Episodes(head, generator, np.array([True, True, False, True]))
    support = {"support": EXAMPLES, "support_labels": np.array([3, 3, 1])}
    logits = keras.ops.convert_to_numpy(model({"queries": EXAMPLES, **support}))
    weights = keras.ops.convert_to_numpy(head.kernel).T
    only_class_0 = np.array([True, False, False, False])  # to attend to
    weights[[3, 1]] = generator(EXAMPLES, ONE_HOT, weights, only_class_0)
    expected = keras.ops.convert_to_numpy(head.score(EXAMPLES, weights.T))
    np.testing.assert_allclose(logits[:, [0, 1, 3]], expected[:, [0, 1, 3]], rtol=1e-5)
    assert (logits[:, 2] < -1e8).all()
    np.testing.assert_array_equal(model(EXAMPLES), head(EXAMPLES))
