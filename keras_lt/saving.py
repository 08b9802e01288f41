"""Keras objects that are saved as the arguments of their constructors."""

import inspect
from collections.abc import Iterator

import keras


class SavedByArguments:
    """A Keras object whose configuration is its constructor's arguments, each of which it has as an attribute.

    Among the bases it comes before Keras's class, whose own configuration, such as name and dtype, stays. What a
    constructor without **kwargs does not take is left out. Keras objects among the arguments are saved with it, and a
    learned number, a weight now, is saved as it stands.
    """

    def get_config(self):
        """The constructor's arguments."""
        config = super().get_config()
        config |= {name: _saved(getattr(self, name)) for name in _arguments(type(self)) if name not in config}
        signature = inspect.signature(type(self))
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
            return config
        return {name: config[name] for name in signature.parameters}

    @classmethod
    def from_config(cls, config):
        """Makes the object again, and those among its arguments."""
        return cls(**keras.saving.deserialize_keras_object(config))


def _arguments(kind: type) -> Iterator[str]:
    """Named arguments of a class's constructor, and of those of its parents that are saved by their arguments."""
    for base in kind.__mro__:
        if issubclass(base, SavedByArguments) and "__init__" in vars(base):
            own = list(inspect.signature(base.__init__).parameters.values())[1:]
            yield from (parameter.name for parameter in own if parameter.kind is not parameter.VAR_KEYWORD)


def _saved(argument):
    if isinstance(argument, keras.Variable):
        argument = keras.ops.convert_to_numpy(argument).tolist()
    return keras.saving.serialize_keras_object(argument)
