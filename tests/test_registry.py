"""Entries, their parameters as they are written, and the names that --help lists without importing anything."""

import ast
import dataclasses
import importlib
import math
import pathlib

import pytest

from keras_lt.registry import PACKAGE, Entry, check_numbers, member, names_in, parsed, split


def line(x, *, slope=1.0, offset=2, up=True, unit="", steps=None, table=(1, 2)):
    """What of these can be told by name: numbers, words, true or false; not what has no default, or another kind."""
    return f"{(1 if up else -1) * slope * x + offset:g}{unit}"


@dataclasses.dataclass(frozen=True)
class ColouredEntry(Entry):
    colour: str = dataclasses.field(default="grey", kw_only=True)


LINES = {"line": ColouredEntry(line, label="Line", colour="red"), "plain": ColouredEntry(lambda x: x)}


def lines(text):
    return member(LINES, text, what="curve")


def test_an_entry_is_called_as_its_function_and_cannot_be_changed():
    assert LINES["line"](3, slope=2.0) == "8"
    assert (LINES["plain"].label, LINES["plain"].colour) == ("", "grey")
    with pytest.raises(dataclasses.FrozenInstanceError):
        LINES["line"].colour = "blue"


def test_parameters_are_what_has_a_default_that_can_be_written():
    assert LINES["line"].parameters == {"slope": 1.0, "offset": 2, "up": True, "unit": ""}
    assert LINES["plain"].parameters == {}


def test_with_parameters_changes_defaults_again_and_again():
    changed = LINES["line"].with_parameters(slope=3.0).with_parameters(offset=0).with_parameters(slope=4.0)
    assert changed(2) == "8"
    assert changed(2, slope=1.0) == "2"
    assert changed.parameters == {"slope": 4.0, "offset": 0, "up": True, "unit": ""}
    assert (type(changed), changed.label, changed.colour) == (ColouredEntry, "Line", "red")
    assert LINES["line"].with_parameters() is LINES["line"]
    assert LINES["line"].parameters["slope"] == 1.0


def test_parameters_lie_in_the_entrys_ranges():
    steep = dataclasses.replace(LINES["line"], ranges={"slope": (1.0, 5.0), "offset": (0, math.inf)})
    assert steep.with_parameters(slope=1.0, offset=0, unit="m")(2) == "2m"
    with pytest.raises(ValueError, match=r"slope must lie in \[1, 5\)\. Received: slope=5\.0"):
        steep.with_parameters(slope=5.0)
    with pytest.raises(ValueError, match=r"offset must be at least 0\. Received: offset=-1"):
        member({"steep": steep}, "steep:offset=-1", what="curve")


def test_a_member_is_named_with_its_parameters():
    assert lines("line") is LINES["line"]
    changed = lines("line:slope=-1e-1:offset=-3:up=False:unit=m=")
    assert changed.parameters == {"slope": -0.1, "offset": -3, "up": False, "unit": "m="}
    assert changed(10) == "-2m="
    assert changed.label == "Line"
    assert lines(changed) is changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("curve", r"curve must be one of line, plain\. Received: curve='curve'"),
        ("", r"curve must be one of line, plain\. Received: curve=''"),
        ("Line", "one of line, plain"),
        ("line:slop=1", r"line has the parameters slope=1\.0, offset=2, up=True, unit=\. Received: curve=line:slop=1"),
        ("line:steps=1", "line has the parameters slope"),
        ("line:=1", "line has the parameters slope"),
        ("plain:slope=1", r"plain has no parameters\. Received: curve=plain:slope=1"),
        ("line:slope=much", r"slope must be a number\. Received: curve=line:slope=much"),
        ("line:slope=", "slope must be a number"),
        ("line:offset=1.5", r"offset must be a whole number\. Received: curve=line:offset=1\.5"),
        ("line:up=1", r"up must be true or false\. Received: curve=line:up=1"),
        ("line:slope", r"written name:parameter=value, each once\. Received: 'line:slope'"),
        ("line:", "each once"),
        ("line:slope=1:slope=2", "each once"),
    ],
)
def test_what_cannot_be_is_answered_with_what_there_is(text, message):
    with pytest.raises(ValueError, match=message):
        lines(text)


def test_split_and_parsed_leave_the_family_out():
    assert split("line") == ("line", {})
    assert split("line:slope=1:unit=a=b") == ("line", {"slope": "1", "unit": "a=b"})
    assert parsed({"n": "3", "x": "3", "b": "TRUE"}, {"n": 1, "x": 1.0, "b": False}, of="it", name="it") == {
        "n": 3,
        "x": 3.0,
        "b": True,
    }
    for value in ("nan", "-inf", "1e999"):
        with pytest.raises(ValueError, match=r"^x must be finite\. Received: it$"):
            parsed({"x": value}, {"x": 1.0}, of="it", name="it")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"epochs": 0, "at_least": 1}, r"epochs must be at least 1\. Received: epochs=0"),
        ({"rate": -0.5}, r"rate must be finite and at least 0\. Received: rate=-0\.5"),
        ({"rate": math.nan}, "rate must be finite"),
        ({"rate": math.inf}, "rate must be finite"),
        ({"fine": 0.5, "share": 1.0, "below": 1}, r"share must lie in \[0, 1\)\. Received: share=1\.0"),
        ({"share": math.nan, "below": 1}, "share must lie in"),
    ],
)
def test_numbers_out_of_range_are_named(numbers, message):
    with pytest.raises(ValueError, match=message):
        check_numbers(**numbers)


def test_numbers_in_range_pass():
    check_numbers(a=0, b=1e300, c=0.0)
    check_numbers(a=1, b=1.99, at_least=1, below=2)


def lists_of_names():
    """Every (file, family) whose names some code of the package asks for."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("names_in", "_listed"):
                arguments = [argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant)]
                if len(arguments) == 2:
                    yield tuple(arguments)


LISTED = sorted(set(lists_of_names()))


def test_every_family_of_the_package_is_listed():
    assert {family for _, family in LISTED} >= {
        *("SAMPLERS", "LOSSES", "FEATURE_LOSSES", "CLASS_WEIGHTS", "RESAMPLING", "ENGINES", "OPTIMIZERS", "SCHEDULES"),
        *("CLASSIFIERS", "HEADS", "METHODS", "BACKBONES", "DATASETS", "AUGMENTATIONS", "SHOT_CUTS"),
    }


@pytest.mark.parametrize(("path", "family"), LISTED)
def test_the_names_in_the_source_are_those_of_the_family(path, family):
    module = ".".join(part for part in pathlib.PurePath(path).with_suffix("").parts if part != "__init__")
    known = getattr(importlib.import_module(f"keras_lt.{module}"), family)
    assert names_in(path, family) == tuple(name for name in known if name != "tiny")  # which the tests add


def test_a_family_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match=r"samplers\.py has no LOSSES"):
        names_in("samplers.py", "LOSSES")
