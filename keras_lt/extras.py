"""Libraries that only some need, which are extras of this package."""

import importlib
import types


def library(module: str, *, extra: str, needed_by: str, has: str = "") -> types.ModuleType:
    """A module of an optional library.

    Args:
      extra: of this package, which installs it.
      needed_by: what the error says needs it.
      has: a name without which it is hollow; some libraries can be imported where something of theirs could not.
    Raises:
      ImportError: it is not installed, or cannot be imported beside what else is, whatever it raises then.
    """
    try:
        found = importlib.import_module(module)
        if has and not hasattr(found, has):
            raise ImportError(f"it has no {has}, as what it needs does not fit it")
    except Exception as error:  # of versions that do not fit each other libraries raise errors of all kinds
        kind = ModuleNotFoundError if isinstance(error, ModuleNotFoundError) else ImportError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"{needed_by} needs {module}: pip install 'keras_lt[{extra}]'. Received: {reason}") from error
    return found
