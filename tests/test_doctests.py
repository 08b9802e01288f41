"""Every example in a docstring runs, and prints what it says."""

import doctest
import importlib
import inspect
import pathlib
import re

import numpy as np
import pytest

import keras_lt

PACKAGE = pathlib.Path(keras_lt.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text() and path != PACKAGE / "__init__.py"
}


class Finder(doctest.DocTestFinder):
    """Finds the examples of decorated functions, too."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


def run(test, *, clear=True):
    """Runs the examples of one docstring."""
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=report.append, clear_globs=clear)
    if report:
        pytest.fail("".join(report), pytrace=False)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the package's own docstring leaves behind, with which those of its functions go on."""
    test = doctest.DocTestParser().get_doctest(keras_lt.__doc__, {"np": np}, "keras_lt", keras_lt.__file__, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("examples"))
        run(test, clear=False)
        yield test.globs


def goes_on(path):
    """Whether the examples of a module take the names that the package's own docstring leaves behind."""
    return re.search(r"^ *(>>>|\.\.\.) .*\b(representation|classifier|data|features)\b", path.read_text(), re.M)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.exhaustive if goes_on(path) else ()) for name, path in MODULES.items()],
)
def test_examples(name, request):
    module = importlib.import_module(name)
    names = request.getfixturevalue("names") if goes_on(MODULES[name]) else {"keras_lt": keras_lt, "np": np}
    found = Finder().find(module, name, globs={**vars(module), **names})
    tests = [test for test in found if test.examples]
    assert tests
    for test in tests:
        run(test)
