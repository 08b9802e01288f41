"""PyTorch weights into our residual nets, which carry the reference's parameter names."""

from collections.abc import Iterator, Mapping

import keras
import numpy as np

from keras_lt.arguments import as_numbers, checked

SHOWN = 10  # of the names that do not fit
_BATCH_NORM_VARIABLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


@checked
def load_torch_state(model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """Assigns the reference's parameters to one of `BACKBONES`, all of them or none.

    Args:
      model: a residual net, fresh or trained.
      state: `layer1.0.conv1.weight` and so on -> array, convolutions as [out, in / groups, kh, kw]. Step counts
        (`num_batches_tracked`) are ignored.
    Raises:
      ValueError: names are unknown or missing, or shapes differ; lists them.
    """
    variables = dict(_named_variables(model))
    arrays = {
        name: _keras_layout(as_numbers(name, array))
        for name, array in state.items()
        if name.rpartition(".")[2] != "num_batches_tracked"
    }
    problems = [f"{name} is unknown" for name in arrays.keys() - variables.keys()]
    problems += [f"{name} is missing" for name in variables.keys() - arrays.keys()]
    problems += [
        f"{name} has shape {arrays[name].shape} in Keras layout instead of {tuple(variables[name].shape)}"
        for name in arrays.keys() & variables.keys()
        if arrays[name].shape != tuple(variables[name].shape)
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(f"state must fit {model.name} exactly. Received: {'; '.join(sorted(problems)[:SHOWN])}{more}")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _keras_layout(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _named_variables(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    for layer in model.layers:
        name = layer.name.replace("_", ".")
        if isinstance(layer, keras.Model):
            yield from _named_variables(layer)
        elif isinstance(layer, keras.layers.Conv2D):
            yield f"{name}.weight", layer.kernel
        elif isinstance(layer, keras.layers.BatchNormalization):
            for theirs, ours in _BATCH_NORM_VARIABLES.items():
                yield f"{name}.{theirs}", getattr(layer, ours)
