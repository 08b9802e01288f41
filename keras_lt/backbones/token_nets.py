"""Nets of tokens in pieces, between which adapters come: those of keras_hub, whose own classes are not cut."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenNet:
    """How a class of nets computes: embeddings, blocks of attention and MLP with a layer norm before each, an end.

    It computes as in evaluation; a frozen net drops nothing out.

    Attributes:
      embed: (net, images [B,H,W,3]) -> the tokens [B,T,D] that the first block takes.
      blocks: net -> its blocks.
      end: (net, tokens) -> what the net gives.
      norms: of a block, the names of the layer norms before attention and MLP.
      attention: of a block, the name of its attention, which has `query_dense` and `value_dense`.
      scale: of a block, the name of the layer behind its attention; empty is none.
      mlp: of a block, the names of the layers of its MLP.
      attend: (net, images) -> (attention, tokens) -> tokens.
    """

    embed: Callable[[keras.Model, Any], Any]
    blocks: Callable[[keras.Model], Sequence[keras.layers.Layer]]
    end: Callable[[keras.Model, Any], Any]
    norms: tuple[str, str]
    attention: str
    scale: str = ""
    mlp: tuple[str, ...] = ("mlp",)
    attend: Callable[[keras.Model, Any], Callable] = lambda net, images: lambda attention, x: attention(x, x)

    def attentions(self, net: keras.Model) -> list[keras.layers.Layer]:
        """The attention of each block."""
        return [operator.attrgetter(self.attention)(block) for block in self.blocks(net)]

    def with_added(self, net: keras.Model, images, added: Sequence[Callable]):
        """What the net gives where to each block's output is added what a function makes of its MLP's input.

        Args:
          added: of each block, tokens [B,T,D] before the second layer norm -> tokens.
        """
        x, attend = self.embed(net, images), self.attend(net, images)
        for block, attention, more in zip(self.blocks(net), self.attentions(net), added, strict=True):
            before, between = (getattr(block, name) for name in self.norms)
            seen = attend(attention, before(x))
            x = x + (getattr(block, self.scale)(seen) if self.scale else seen)
            x = x + _through(block, self.mlp, between(x)) + more(x)
        return self.end(net, x)


def _through(block: keras.layers.Layer, names: Sequence[str], x):
    return functools.reduce(lambda tokens, name: operator.attrgetter(name)(block)(tokens), names, x)


def _rotated(net: keras.Model, images) -> Callable:
    """Attention whose positions are rotations; the class token and the registers have none."""
    position = {"position_embeddings": net.rope_embedding(images), "num_prefix_tokens": 1 + net.num_register_tokens}
    return lambda attention, tokens: attention(tokens, **position)


_VIT = TokenNet(
    embed=lambda net, images: net.layers[1](images),
    blocks=lambda net: net.layers[2].encoder_layers,
    end=lambda net, tokens: net.layers[2].layer_norm(tokens),
    norms=("layer_norm_1", "layer_norm_2"),
    attention="mha",
)
_CLIP = TokenNet(
    embed=lambda net, images: net.pre_layer_norm(net.embedding(images)),
    blocks=lambda net: net.encoder_layers,
    end=lambda net, tokens: net.layer_norm(tokens),
    norms=("layer_norm_1", "layer_norm_2"),
    attention="attention",
    mlp=("dense_1", "activation", "dense_2"),
)
_DINOV2 = TokenNet(
    embed=lambda net, images: net.embeddings(images),
    blocks=lambda net: net.encoder.layers,
    end=lambda net, tokens: net.layernorm(tokens),
    norms=("norm1", "norm2"),
    attention="attention.attention",
    scale="layer_scale1",
    mlp=("mlp", "layer_scale2"),
)
_SIGLIP = TokenNet(
    embed=lambda net, images: net.embedding(images),
    blocks=lambda net: net.encoder_layers,
    end=lambda net, tokens: net.head(net.post_layer_norm(tokens)),
    norms=("layer_norm1", "layer_norm2"),
    attention="self_attn",
)
# A class of nets -> its pieces.
TOKEN_NETS: dict[str, TokenNet] = {
    "CLIPVisionEncoder": _CLIP,
    "DINOV2Backbone": _DINOV2,
    "DINOV3Backbone": dataclasses.replace(_DINOV2, attention="attention", attend=_rotated),
    "DeiTBackbone": dataclasses.replace(_VIT, mlp=("mlp", "output_layer.dense")),
    "SigLIPVisionEncoder": _SIGLIP,
    "ViTBackbone": _VIT,
}
_TOWER_AND_NORM = dataclasses.replace(
    _CLIP,
    embed=lambda net, images: _CLIP.embed(net.layers[1], images),
    blocks=lambda net: net.layers[1].encoder_layers,
    end=lambda net, tokens: net.layers[2](tokens),
)


def token_net(net: keras.layers.Layer) -> TokenNet | None:
    """The pieces of a net; None of one that is not known."""
    kinds = [type(layer).__name__ for layer in (net, *getattr(net, "layers", ())[1:])]
    # MetaCLIP 2 has its last layer norm behind its tower.
    norm_behind = kinds[1:] == ["MetaCLIP2VisionEncoder", "LayerNormalization"]
    return _TOWER_AND_NORM if norm_behind else TOKEN_NETS.get(kinds[0])
