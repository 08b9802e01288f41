"""Arguments of public functions: of the kinds that their annotations say, or refused in one line."""

import functools
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Checked = TypeVar("Checked", bound=Callable)

WORDS = {
    str: "a text",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    type(None): "None",
    os.PathLike: "a path",
    Mapping: "a dict",
    Callable: "a function",
}
NUMBERS = {bool: bool | np.bool_, int: numbers.Integral, float: numbers.Real}
PARTS = {**NUMBERS, str: str | numbers.Integral}  # of lists; classes may have numbers for names
SEQUENCES = (tuple, list, Sequence)
ARRAYS = frozenset(typing.get_args(npt.ArrayLike))


def checked(function: Checked | None = None, **expected: str) -> Checked:
    """A function or class that refuses by a ValueError what its annotations do not say; a decorator.

    What may be an array it leaves to whoever reads it, by `as_array`.

    Args:
      **expected: what an argument must be, where a message can say more than its annotation.
    """
    if function is None:
        return functools.partial(checked, **expected)
    if isinstance(function, type):
        function.__init__ = checked(function.__init__, **expected)
        return function
    signature = inspect.signature(function)
    hints = functools.cache(lambda: typing.get_type_hints(function))

    @functools.wraps(function)
    def call(*args, **kwargs):
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            several = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            for each, given in value.items() if several else [(name, value)]:
                check_kind(each, given, hints().get(name, Any), expected.get(each, ""))
        return function(*args, **kwargs)

    return call


def check_kind(name: str, value: object, annotation: Any, expected: str = ""):
    """Raises ValueError where a value is not what an annotation says, or `expected` in better words."""
    kinds = typing.get_args(annotation) if _origin(annotation) in (types.UnionType, typing.Union) else (annotation,)
    if set(kinds) >= ARRAYS or any(_fits(value, kind) for kind in kinds):
        return
    expected = expected or " or ".join(dict.fromkeys(map(_word, kinds)))
    shown = f"{name}={value!r}" if isinstance(value, str | numbers.Number | None) else f"a {type(value).__name__}"
    raise ValueError(f"{name} must be {expected}. Received: {shown}")


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind) or kind


def _fits(value: object, kind: Any) -> bool:
    origin, of = _origin(kind), typing.get_args(kind)
    if origin in SEQUENCES:
        is_list = hasattr(value, "__len__") and hasattr(value, "__iter__") and getattr(value, "shape", None) != ()
        is_list = is_list and not isinstance(value, bytes | Mapping | Set)
        return is_list and all(isinstance(part, PARTS[of[0]]) for part in value if of and of[0] in PARTS)
    if origin in (Any, np.ndarray) or not isinstance(origin, type):
        return True
    return isinstance(value, NUMBERS.get(origin, origin))


def _word(kind: Any) -> str:
    origin = _origin(kind)
    if origin in SEQUENCES:
        return f"a list{' of numbers' * bool(set(typing.get_args(kind)) & NUMBERS.keys())}"
    return WORDS.get(origin, f"a {origin.__name__}")


def check_unmasked(**arrays: object):
    """Raises ValueError for the first masked array, by its name: what its mask hides would count as the rest does."""
    for name, array in arrays.items():
        if np.ma.is_masked(array):
            raise ValueError(
                f"{name} must have all of its values: drop those that are masked, or fill them in. "
                f"Received: a masked array, {np.ma.count_masked(array)} of {np.size(array)} values masked"
            )


def as_array(name: str, values: npt.ArrayLike) -> np.ndarray:
    """An array of whatever holds one: a list, a tensor of any library, a column of a table, an array of objects.

    Raises:
      ValueError: it holds none, or parts of it are masked.
    """
    check_unmasked(**{name: values})
    try:
        array = np.asarray(values)
        return np.asarray(array.tolist()) if array.dtype == object else array
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:  # as each library says it
        kind, said = type(values).__name__, str(error).partition("\n")[0]
        raise ValueError(f"{name} must be an array, of one shape. Received: a {kind}: {said}") from error


def in_place(name: str, values: Any) -> Any:
    """Arrays as they are, memory-mapped or rows of these; `as_numbers` of tensors, lists and tables."""
    check_unmasked(**{name: values})
    dtype = getattr(values, "dtype", None)
    return values if isinstance(dtype, np.dtype) and dtype.kind not in "OV" else as_numbers(name, values)


def as_numbers(name: str, values: npt.ArrayLike) -> np.ndarray:
    """`as_array` of numbers, in float32 of bfloat16, which NumPy does not compute with.

    Raises:
      ValueError: it holds others, too.
    """
    array = as_array(name, values)
    array = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers. Received: {array.dtype}, shape={array.shape}")
    return array


def known_values(name: str, values: Any) -> np.ndarray | None:
    """`as_array`, also of tensors; None within a graph, where the values are not there yet."""
    import keras  # noqa: PLC0415 - --help does not wait for it

    try:
        return as_array(name, values)
    except ValueError:
        if keras.ops.is_tensor(values):
            return None
        raise


def as_operand(name: str, values: Any) -> Any:
    """`as_numbers` for `keras.ops`: what Keras computes with stays as it is, within a graph too."""
    import keras  # noqa: PLC0415 - --help does not wait for it

    computed = keras.ops.is_tensor(values) or isinstance(values, keras.Variable | keras.KerasTensor)
    return values if computed else as_numbers(name, values)
