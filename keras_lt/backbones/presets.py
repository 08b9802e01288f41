"""Adapters that give the nets of keras_hub and keras_cv the shape of our own: stages in a row, ending in `pool`.

Both libraries name the levels of a net's feature pyramid. What follows the last level but one is the last block.
"""

import difflib
import pathlib
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from keras_lt.backbones import parts
from keras_lt.backbones.local_weights import load_weights
from keras_lt.backbones.normalizations import BYTES, Normalization

# Blocks per stage, for the classes of keras_cv that need no preset: it would fetch even their shapes from the network.
_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_KERAS_CV_RESNETS = {
    f"ResNet{depth}{version}Backbone": (f"ResNet{version}Backbone", depth)
    for version in ("", "V2")
    for depth in _DEPTHS
}


def is_preset(name: str) -> bool:
    """Whether a backbone's name is `keras_hub/` or `keras_cv/` and something more; loads neither library."""
    library, _, preset = name.partition("/")
    return library in _LIBRARIES and bool(preset)


def preset_backbone(name: str, *, image_size: int | None = None, pretrained: str = "") -> keras.Model:
    """Images [B,H,W,3] -> features [B,D] by a net of keras_hub or keras_cv in two parts, `body` and `last_block`.

    Args:
      name: "keras_hub/<preset>" or "keras_cv/<class or preset>". A preset is a name the library knows, and fetches
        from the network, or a folder that `save_to_preset` wrote; keras_hub's also a handle such as
        "hf://timm/resnet50.a1_in1k" or a folder with timm's `config.json` and `model.safetensors`.
      image_size: side of the square images in pixels; None takes any size.
      pretrained: "imagenet" for the weights that come with the preset, a file that `save_weights` of that net wrote,
        or empty for none.
    Raises:
      ModuleNotFoundError: the library is not installed.
      ValueError: the library knows no such net, or it cannot be cut, or not be saved and loaded.
    """
    library, _, preset = name.partition("/")
    published = pretrained == "imagenet"
    whole, levels = _LIBRARIES[library](preset, load=published)
    if pretrained and not published:
        load_weights(whole, pretrained)
    if len(levels) < 2 or len(whole.outputs) != 1 or len(whole.outputs[0].shape) != 4:
        raise ValueError(
            "backbone must be a net with two pyramid levels or more, from images to one feature map [B,h,w,D]. "
            f"Received: backbone={name}, a {type(whole).__name__}"
        )
    _check_loads_again(whole, name)
    cut = levels[sorted(levels, key=lambda level: int(level.removeprefix("P")))[-2]]
    return parts.in_two(whole, cut, image_size=image_size, name=whole.name)


def preset_normalization(name: str) -> Normalization | None:
    """How images must be normalised for a net of keras_hub or keras_cv; None where its preset does not say."""
    library, _, preset = name.partition("/")
    if library == "keras_cv":
        return BYTES
    _check_keras_hub_preset(preset)
    try:
        converter = _keras_hub().layers.ImageConverter.from_preset(preset)
    except FileNotFoundError:
        converter = None
    if converter is None:
        return None
    # It gives pixel * scale + offset of pixels up to 255.
    scale = 255 * np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    return Normalization(mean=tuple((-offset / scale).tolist()), std=tuple((1 / scale).tolist()))


def _from_keras_hub(preset: str, *, load: bool) -> tuple[keras.Model, Mapping[str, keras.KerasTensor]]:
    """The net of a preset, and its pyramid levels."""
    _check_keras_hub_preset(preset)
    whole = _keras_hub().models.Backbone.from_preset(preset, load_weights=load)
    return whole, getattr(whole, "pyramid_outputs", {})


def _from_keras_cv(name: str, *, load: bool) -> tuple[keras.Model, Mapping[str, keras.KerasTensor]]:
    """The net of a class or preset, and its pyramid levels."""
    models = _keras_cv().models
    owners = {preset: owner for owner in models.Backbone.__subclasses__() for preset in owner.presets}
    if name in _KERAS_CV_RESNETS and load:
        presets = list(getattr(models, name).presets_with_weights)
        if not presets:
            raise ValueError(f"keras_cv has no weights for this net. Received: backbone=keras_cv/{name}")
        whole = owners[presets[0]].from_preset(presets[0], load_weights=True)
    elif name in _KERAS_CV_RESNETS:
        family, depth = _KERAS_CV_RESNETS[name]
        whole = getattr(models, family)(
            stackwise_filters=[64, 128, 256, 512],
            stackwise_blocks=_DEPTHS[depth],
            stackwise_strides=[1, 2, 2, 2],
            block_type="block" if depth >= 50 else "basic_block",
            include_rescaling=True,
        )
    else:
        _check_known(name, [*_KERAS_CV_RESNETS, *owners], library="keras_cv")
        whole = owners.get(name, models.Backbone).from_preset(name, load_weights=load)
    if not whole.include_rescaling:
        raise ValueError(f"backbone must rescale its images itself. Received: keras_cv/{name}, include_rescaling=False")
    return whole, {level: whole.get_layer(layer).output for level, layer in whole.pyramid_level_inputs.items()}


_LIBRARIES = {"keras_hub": _from_keras_hub, "keras_cv": _from_keras_cv}


def _keras_hub():
    try:
        import keras_hub  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise _missing("keras_hub", error) from error
    return keras_hub


def _keras_cv():
    try:
        import keras_cv  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise _missing("keras_cv", error) from error
    return keras_cv


def _missing(library: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"--backbone={library}/... needs {library}: pip install 'keras_lt[{library}]'. Received: {error}"
    )


def _check_keras_hub_preset(preset: str):
    """A handle names its host; any other preset is one of keras_hub's with pyramid levels, or a folder."""
    if "://" not in preset:
        _check_known(preset, _keras_hub().models.FeaturePyramidBackbone.presets, library="keras_hub")


def _check_known(preset: str, known: Iterable[str], *, library: str):
    if preset in known or pathlib.Path(preset).is_dir():
        return
    spelled = {name.lower(): name for name in known}
    sought = preset.lower().removesuffix("backbone")  # other classes of keras_cv are known by their presets
    near = [spelled[name] for name in difflib.get_close_matches(sought, spelled, n=5, cutoff=0.4)]
    raise ValueError(
        f"backbone must be {library}/ and a net with pyramid levels that {library} knows, or a preset folder; "
        f"near are {', '.join(near) or 'none'}. Received: backbone={library}/{preset}"
    )


def _check_loads_again(whole: keras.Model, name: str):
    """Some layers cannot be made from their own configuration: better now than after the training."""
    for layer in whole.layers:
        try:
            type(layer).from_config(layer.get_config())
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"backbone must be of layers that can be saved and loaded. Received: backbone={name}, "
                f"layer={layer.name}: {error}"
            ) from error
