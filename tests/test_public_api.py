"""The package's front page: few names, each typed and with an example, and none taken by a module."""

import functools
import importlib.util
import inspect

import pytest

import keras_lt
from keras_lt.backbones.resnets import bottleneck, resnet
from tests.programs import lines_of

FAMILIES = {
    "backbones": "BACKBONES",
    "classifiers": "CLASSIFIERS",
    "datasets": "DATASETS",
    "losses": "LOSSES",
    "methods": "METHODS",
    "metrics": "ShotGroups",
    "samplers": "SAMPLERS",
}
NAMES = sorted(set(keras_lt.__all__) - set(FAMILIES))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_found_and_no_module_can_take_it(name):
    """`import keras_lt.evaluate` would make a function of that name the command's module."""
    assert callable(getattr(keras_lt, name))
    assert importlib.util.find_spec(f"keras_lt.{name}") is None


@pytest.mark.parametrize("name", [name for name in NAMES if inspect.isfunction(getattr(keras_lt, name))])
def test_a_function_is_typed_and_has_an_example(name):
    function = getattr(keras_lt, name)
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    assert inspect.Signature.empty not in {signature.return_annotation, *(p.annotation for p in parameters)}
    assert ">>> " in inspect.getdoc(function)


@pytest.mark.parametrize("name", [name for name in NAMES if inspect.isclass(getattr(keras_lt, name))])
def test_a_class_says_what_it_holds(name):
    assert any(section in inspect.getdoc(getattr(keras_lt, name)) for section in ("Attributes:", "Args:"))


@pytest.mark.parametrize(("family", "content"), FAMILIES.items())
def test_a_family_needs_no_import_of_its_own(family, content):
    assert hasattr(getattr(keras_lt, family), content)


def test_all_names_are_offered_by_completion():
    assert set(keras_lt.__all__) <= set(dir(keras_lt))


def test_plots_show_the_data_and_the_chosen_tau(data):
    assert "3 classes sorted by training examples, from 120 down to 6" in keras_lt.plot_class_counts(data).alt
    candidates = [
        {"tau": tau, "many": 0.9 - tau / 4, "medium": 0.5, "few": tau / 2, "all": 0.5} for tau in (0.0, 0.5, 1.0)
    ]
    plot = keras_lt.plot_tau_curve(keras_lt.Classifier(None, None, {"tau": 0.5}, {}, candidates))
    assert "few goes from 0.0 to 50.0%" in plot.alt
    assert plot.alt.endswith("chosen is 0.5.")
    with pytest.raises(ValueError, match="chosen a tau"):
        keras_lt.plot_tau_curve(keras_lt.Classifier(None, None, {}, {}, []))


LOADED = """
import sys
{imports}
assert "keras_lt.stages" not in sys.modules
import keras
print(keras.saving.load_model("{path}", compile=False).output_shape)
"""


def test_a_saved_model_is_found_again_by_an_import_of_the_package_alone(tmp_path):
    path = tmp_path / "model.keras"
    grouped = functools.partial(bottleneck, groups=32, group_width=4)
    net = resnet((1,) * 4, block=grouped, image_size=32, name="resnext14")
    keras_lt.join(net, keras_lt.classifiers.TauNormalizedDense(3)).save(path)
    for imports in ("import keras_lt", "import keras, keras_lt"):
        assert lines_of(LOADED.format(path=path, imports=imports))[-1] == "(None, 3)"
