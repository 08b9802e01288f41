"""Families of things that go by name: a member is one entry that knows all about itself, and takes parameters.

A family is a dict from name to entry. `SAMPLERS["power"]` is called as the function that it holds; a member with
parameters of its own is written "power:q=0.33", on the command line as in Python, and `member` gives that entry.
"""

import ast
import dataclasses
import functools
import inspect
import math
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from keras_lt.arguments import check_kind

PACKAGE = pathlib.Path(__file__).parent
NOT_NEGATIVE, SHARE = (0.0, math.inf), (0.0, 1.0)  # ranges of parameters


@dataclasses.dataclass(frozen=True)
class Entry:
    """A member of a family; families add what else anybody needs to know of their members.

    Attributes:
      function: what the entry does when it is called.
      label: how tables write its name; empty is the name itself.
      ranges: parameter -> where its number must lie, (at least, below), or the words that it may be.
    """

    function: Callable
    label: str = dataclasses.field(default="", kw_only=True)
    ranges: Mapping[str, tuple[float, float] | tuple[str, ...]] = dataclasses.field(
        default_factory=dict, kw_only=True, hash=False
    )

    def __call__(self, *args, **kwargs):
        """Calls the function."""
        return self.function(*args, **kwargs)

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """The member's own parameters, with their defaults: the function's arguments that have one."""
        return {
            name: parameter.default
            for name, parameter in inspect.signature(self.function).parameters.items()
            if isinstance(parameter.default, bool | int | float | str)
        }

    def with_parameters(self, **parameters) -> "Entry":
        """The same entry with other defaults of its parameters.

        Raises:
          ValueError: a number is not in its range, or a word none of those that it may be.
        """
        for name in filter(self.ranges.get, parameters):
            if isinstance(parameters[name], str):
                check_choice(self.ranges[name], **{name: parameters[name]})
            else:
                at_least, below = self.ranges[name]
                check_numbers(**{name: parameters[name]}, at_least=at_least, below=below)
        return (
            dataclasses.replace(self, function=functools.partial(self.function, **parameters)) if parameters else self
        )


Member = TypeVar("Member", bound=Entry)


def member(family: Mapping[str, Member], text: str | Member, *, what: str) -> Member:
    """The entry that a text names, with the parameters that follow the name.

    >>> from keras_lt.samplers import SAMPLERS
    >>> member(SAMPLERS, "power:q=0.5", what="sampler")([90, 10], 0.0)
    array([0.75, 0.25])

    Args:
      family: name -> entry.
      text: a name, or "name:parameter=value:parameter=value"; an entry is taken as it is.
      what: is named, as messages call it.
    Raises:
      ValueError: no such member, no such parameter, or a value of another kind; it says what there is.
    """
    if isinstance(text, Entry):
        return text
    name, given = split(text)
    if name not in family:
        check_choice(family, **{what: text})
    return family[name].with_parameters(**parsed(given, family[name].parameters, of=f"{what}={text}", name=name))


def split(text: str) -> tuple[str, dict[str, str]]:
    """The name, and the parameters as they are written: "power:q=0.33" -> ("power", {"q": "0.33"}).

    Raises:
      ValueError: it is no text, or what follows the name is not parameter=value, each once.
    """
    if not isinstance(text, str):
        raise ValueError(f"A name must be a text, such as 'crt' or 'power:q=0.33'. Received: {text!r}")
    name, *words = text.split(":")
    given = dict(word.partition("=")[::2] for word in words if "=" in word)
    if len(given) < len(words):
        raise ValueError(f"Parameters are written name:parameter=value, each once. Received: {text!r}")
    return name, given


def parsed(given: Mapping[str, str], parameters: Mapping[str, Any], *, of: str, name: str) -> dict[str, Any]:
    """Parameters as their defaults are: whole numbers, numbers, true or false, words.

    Args:
      given: parameter -> value as it is written.
      parameters: those that there are -> default.
      of, name: how messages call what has them.
    """
    unknown = [parameter for parameter in given if parameter not in parameters]
    if unknown:
        there_is = ", ".join(f"{parameter}={default}" for parameter, default in parameters.items())
        raise ValueError(f"{name} has {f'the parameters {there_is}' if there_is else 'no parameters'}. Received: {of}")
    return {parameter: _value(text, parameters[parameter], parameter, of=of) for parameter, text in given.items()}


def _value(text: str, default: Any, parameter: str, *, of: str) -> Any:
    kind = type(default)
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        kinds = {bool: "true or false", int: "a whole number", float: "a number"}
        raise ValueError(f"{parameter} must be {kinds[kind]}. Received: {of}") from error
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{parameter} must be finite. Received: {of}")
    return value


def check_numbers(*, at_least: float = 0.0, below: float = math.inf, **numbers: float):
    """Raises ValueError for the first number, by its name, that is not in [at_least, below)."""
    for name, number in numbers.items():
        check_kind(name, number, float)
        if not at_least <= number < below:
            finite = "finite and " if isinstance(number, float) else ""
            range_ = f"be {finite}at least {at_least:g}" if below == math.inf else f"lie in [{at_least:g}, {below:g})"
            raise ValueError(f"{name} must {range_}. Received: {name}={number}")


def check_choice(valid: Collection[str], **words: str):
    """Raises ValueError for the first word, by its name, that is none of the valid ones; it says what there is."""
    for name, word in words.items():
        if not isinstance(word, str) or word not in valid:
            raise ValueError(f"{name} must be one of {', '.join(valid)}. Received: {name}={word!r}")


def names_in(path: str, family: str) -> tuple[str, ...]:
    """The names in a family's dict as its source has them, for --help: nothing is imported, Keras least of all.

    Args:
      path: of the file in the package, such as "losses/__init__.py".
      family: the dict's name, such as "LOSSES".
    """
    for node in ast.parse((PACKAGE / path).read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == family for target in targets):
            found = node.value
            elements: Collection = found.keys if isinstance(found, ast.Dict) else found.elts
            return tuple(ast.literal_eval(element) for element in elements)
    raise ValueError(f"{path} has no {family}")
