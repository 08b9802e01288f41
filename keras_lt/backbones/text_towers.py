"""The text towers of keras_hub's nets of images and text: directions of classes, by their names."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_lt.backbones.preset_names import import_library
from keras_lt.keras_settings import plain_settings

PROMPT = "a photo of a {}."
_NUMBER = re.compile(r"n\d{8}|[\W\d_]*")  # ImageNet's folders, or nothing with a letter in it
_BATCH = 64  # sentences of one forward pass


@dataclasses.dataclass(frozen=True)
class TextTower:
    """What a preset says of names, in the space of its backbone's features: names [C] -> float32 [C, D].

    Attributes:
      preset: as keras_hub takes it.
      embed: (the preset's net, token ids [B, T]) -> [B, D].
    """

    preset: str
    embed: Callable[[keras.Model, Any], Any]

    def check(self, class_names: Sequence[str]):
        """Raises ValueError where the classes have numbers for names, or the preset has no tokenizer."""
        if all(_NUMBER.fullmatch(name) for name in class_names):
            raise ValueError(
                "head_start=text reads the names of the classes, as of folders or of the lines of classes.txt. "
                f"Received: {', '.join(class_names[:3])}, ..."
            )
        self._tokens()

    @plain_settings(dtype_policy="float32")
    def __call__(self, class_names: Sequence[str]) -> np.ndarray:
        """Each name in `PROMPT`, underscores read as spaces."""
        net = import_library("keras_hub").models.Backbone.from_preset(self.preset, dtype="float32")
        tokens, length = self._tokens(), net.text_encoder.max_sequence_length
        sentences = [PROMPT.format(name.replace("_", " ")) for name in class_names]
        found = []
        for start in range(0, len(sentences), _BATCH):
            prompts = {"prompts": sentences[start : start + _BATCH], "images": None}
            given = self.embed(net, tokens(prompts, sequence_length=length)["token_ids"])
            found.append(keras.ops.convert_to_numpy(given).astype(np.float32))
        return np.concatenate(found)

    def _tokens(self) -> Callable[..., dict[str, Any]]:
        """The preset's own preprocessing of sentences."""
        try:
            made = import_library("keras_hub").models.CausalLMPreprocessor.from_preset(self.preset)
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(
                "head_start=text needs a preset with a tokenizer. "
                f"Received: backbone=keras_hub/{self.preset}: {' '.join(str(error).split())}"
            ) from error
        made.image_converter = None
        return made


def projected_back(net: keras.Model, tokens: Any) -> Any:
    """Texts t as t P', P being the projection of features f by which they compare with texts: (f P) t' = f (t P')'."""
    texts = net.get_text_embeddings(tokens)
    return keras.ops.matmul(texts, keras.ops.transpose(net.vision_projection.kernel))


def as_they_are(net: keras.Model, tokens: Any) -> Any:
    """Texts of a net that compares its features with them as they are."""
    return net.get_text_embeddings(tokens)
