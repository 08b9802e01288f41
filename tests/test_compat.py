"""The versions that the package runs on, and what of them is not promised."""

import ast
import importlib
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lt
from keras_lt import backbones, compat

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = pathlib.Path(keras_lt.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
PYTHONS_OWN = {
    "_replace",
    "_asdict",
    *dir(type),
    *dir(Exception),
    "__unraisablehook__",
    "__version__",
    "__file__",
    "__context__",
}  # the first two are of named tuples


def versions(name):
    """A list of `environments/`, as name -> version."""
    lines = (ROOT / "environments" / f"{name}.txt").read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if not line.startswith("#"))


@pytest.mark.versions
@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_can_be_imported(path):
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    if not name.endswith("__main__"):
        importlib.import_module(name)


def numbers(version):
    """3.10.0 is 3.10."""
    return tuple(int(part) for part in re.sub(r"(\.0)+$", "", version).split("."))


def lower_bounds():
    """Name -> version, of what setup.py asks for, for itself and for its extras."""
    return dict(re.findall(r'"([\w-]+)>=([\d.]+)"', (ROOT / "setup.py").read_text().lower()))


def test_what_colab_ships_is_new_enough_for_the_package_and_its_extras():
    bounds, colab = lower_bounds(), versions("colab")
    asked = bounds.keys() & colab.keys()
    assert {"keras", "datasets", "tensorflow-datasets", "keras-hub"} <= asked
    assert {name for name in asked if numbers(colab[name]) < numbers(bounds[name])} == set()


def test_the_oldest_versions_that_are_tried_are_the_lower_bounds_of_the_package():
    setup, oldest, bounds = (ROOT / "setup.py").read_text().lower(), versions("oldest"), lower_bounds()
    required = re.search(r"install_requires=\[(.*?)\]", setup, re.DOTALL).group(1)
    assert set(re.findall(r'"([\w-]+)', required)) <= oldest.keys()
    assert {name: numbers(bounds[name]) for name in oldest} == {name: numbers(oldest[name]) for name in oldest}


def test_both_lists_say_all_that_the_package_requires():
    not_in_colab = {"pytest", "pytest-xdist", "wrapt"}
    assert versions("oldest").keys() <= versions("colab").keys() | not_in_colab


def test_private_names_of_others_stand_in_compat_alone():
    own, used = set(PYTHONS_OWN), {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute):
                if isinstance(node.ctx, ast.Store):
                    own.add(node.attr)
                elif node.attr.startswith("_"):
                    used.setdefault(node.attr, set()).add(path.name)
            elif isinstance(node, ast.ImportFrom):
                private = re.match(r"(keras\.src|tensorflow\.python)\b", node.module)
                assert path.name == "compat.py" or not private, path
    assert {name: files for name, files in used.items() if name not in own and files != {"compat.py"}} == {}


@pytest.mark.versions
def test_layers_within_are_those_of_every_depth():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="deep")])
    outer = keras.Sequential([keras.Input((2,)), inner, keras.layers.Dense(1, name="shallow")])
    assert {"deep", "shallow"} <= {layer.name for layer in compat.layers_within(outer)}


@pytest.mark.versions
def test_a_variable_is_found_where_the_optimizer_was_built_for_it():
    variables = [keras.Variable([float(i)]) for i in range(3)]
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(variables)
    assert [compat.variable_index(optimizer, variable) for variable in variables] == [0, 1, 2]


@pytest.mark.versions
def test_xla_is_known_while_it_compiles():
    import tensorflow as tf  # noqa: PLC0415 - only this test needs it

    seen = {}

    def look(x, *, mode):
        seen[mode] = compat.inside_xla()
        return x

    for mode in (False, True):
        tf.function(lambda x, mode=mode: look(x, mode=mode), jit_compile=mode)(tf.constant(1.0))
    assert seen == {False: False, True: True}


@pytest.mark.versions
def test_batch_renormalization_is_known_where_keras_has_it():
    assert not compat.renormalizes(keras.layers.BatchNormalization())
    if hasattr(keras.layers.BatchNormalization(), "renorm"):
        assert compat.renormalizes(keras.layers.BatchNormalization(renorm=True))


@pytest.mark.versions
def test_a_net_that_skips_over_the_cut_is_refused():
    """By Keras itself from 3.14 on."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 3, padding="same", name="last")(keras.layers.ReLU()(inputs))
    model = keras.Model(inputs, keras.layers.Add()([x, inputs]), name="skips")
    with pytest.raises(ValueError, match=r"all of the net goes through one tensor\. Received: skips"):
        backbones.build(backbones.of_model(model, last_block="last"), image_size=8)


def test_no_gradient_goes_through_what_is_frozen_and_trains_again_afterwards():
    layers = [keras.layers.Dense(3, use_bias=False) for _ in range(2)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    layers[0].trainable = False
    frozen = compat.frozen_variables(model)
    assert [variable.path for variable in frozen] == [layers[0].kernel.path]

    def watched():
        with tf.GradientTape() as tape:
            model(np.ones((1, 2), "float32"))
        return len(tape.watched_variables())

    assert watched() == 2  # Keras says nothing to the tape
    with compat.unwatched(frozen):
        assert watched() == 1
    assert watched() == 2
