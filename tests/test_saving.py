"""What is saved of an object whose configuration is its constructor's arguments."""

import keras
import numpy as np

from keras_lt.saving import SavedByArguments


@keras.saving.register_keras_serializable("tests")
class Scaled(SavedByArguments, keras.layers.Layer):
    def __init__(self, inner, factor, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.factor = inner, factor


@keras.saving.register_keras_serializable("tests")
class Learned(Scaled):
    def __init__(self, inner, factor=1.0, *, power=2, **kwargs):
        super().__init__(inner, factor, **kwargs)
        self.power = power

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.factor))


@keras.saving.register_keras_serializable("tests")
class Around(SavedByArguments, keras.Model):
    def __init__(self, inner):
        super().__init__(name="around")
        self.inner = inner


def again(layer):
    return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))


def test_the_arguments_of_parents_and_what_keras_saves_are_there_too():
    config = Learned(keras.layers.Dense(3), 0.5, name="learned", dtype="float32").get_config()
    assert (config["factor"], config["power"], config["name"]) == (0.5, 2, "learned")
    assert config["inner"]["config"]["units"] == 3
    assert config["dtype"]["config"]["name"] == "float32"


def test_an_object_within_is_made_again_and_a_learned_number_is_saved_as_it_stands():
    layer = Learned(keras.layers.Dense(3), 0.5)
    layer.build((None, 4))
    layer.factor.assign(0.75)
    copy = again(layer)
    assert type(copy) is Learned
    assert copy.factor == 0.75
    assert type(copy.inner) is keras.layers.Dense
    assert copy.inner is not layer.inner


def test_a_constructor_gets_no_more_than_it_takes():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    config = Around(inner).get_config()
    assert config.keys() == {"inner"}
    np.testing.assert_array_equal(again(Around(inner)).inner.output_shape[-1], 3)
