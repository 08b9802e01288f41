"""Adapters: a few weights that are trained inside a frozen net of tokens, which stays as it is."""

import math
from collections.abc import Callable
from typing import Any

import keras

from keras_lt.backbones.parts import as_input
from keras_lt.backbones.token_nets import TokenNet, token_net
from keras_lt.saving import SavedByArguments

# PyTorch's for a linear layer, U(-1 / sqrt(D), 1 / sqrt(D)): Kaiming's for leaky ReLU of slope sqrt(5).
LINEAR = {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"}


class AroundNet(SavedByArguments, keras.layers.Layer):
    """What the layers below have in common: the net that they hold is frozen, saved with them and made again.

    Args:
      net: built, images [B,H,W,3] -> tokens [B,T,D] or a vector, one whose pieces `token_nets.token_net` knows.
    """

    def __init__(self, net: keras.Model, **kwargs):
        super().__init__(autocast=False, **kwargs)  # the net's own layers cast
        for part in (net, *net.layers):  # one that was made from a frozen one's configuration has layers that are not
            part.trainable = False
        self.net = net

    @property
    def pieces(self) -> TokenNet:
        """The pieces of the net."""
        return token_net(self.net)

    def compute_output_spec(self, images):
        """As the net's."""
        given = self.net.outputs[0]
        return keras.KerasTensor((images.shape[0], *given.shape[1:]), dtype=given.dtype)


@keras.saving.register_keras_serializable("keras_lt")
class LowRankNet(AroundNet):
    """LoRA (Hu et al., arXiv:2106.09685) in the queries and values of every block: W + A B / r in place of W.

    A [D, r] begins random and B [r, D] zero, so that the net begins as it is. As LIFT has it (Shi et al.,
    arXiv:2309.10019) the scale is 1 / r. The products are made once per batch, and cost nothing beside its tokens.

    Args:
      rank: r.
    """

    def __init__(self, net: keras.Model, rank: int, **kwargs):
        super().__init__(net, **kwargs)
        self.rank = rank

    def build(self, images_shape):
        """Makes A [D, r] and B [r, D] of queries and values of every block."""
        self.factors = []
        for i, kernel in enumerate(self.kernels):
            width, name = kernel.shape[0], f"{i // 2}_{('query', 'value')[i % 2]}"
            random = keras.initializers.VarianceScaling(**LINEAR)
            first = self.add_weight((width, self.rank), random, name=f"{name}_a")
            second = self.add_weight((self.rank, math.prod(kernel.shape[1:])), "zeros", name=f"{name}_b")
            self.factors.append((first, second))

    @property
    def kernels(self) -> list[keras.Variable]:
        """Of queries and values, of each block in turn: [D, D] or [D, heads, D / heads]."""
        dense = [(attention.query_dense, attention.value_dense) for attention in self.pieces.attentions(self.net)]
        return [layer.kernel for pair in dense for layer in pair]

    def _sums(self) -> dict[int, Any]:
        """By the id of a kernel, what takes its place."""
        return {
            id(kernel): kernel + keras.ops.reshape(keras.ops.matmul(first, second), kernel.shape) / self.rank
            for kernel, (first, second) in zip(self.kernels, self.factors, strict=True)
        }

    def call(self, images):
        """Images -> what the net gives."""
        sums = self._sums()
        own, fixed = (
            [sums.get(id(variable), variable) for variable in variables]
            for variables in (self.net.trainable_variables, self.net.non_trainable_variables)
        )
        given, _ = self.net.stateless_call(own, fixed, as_input(self.net, images), training=False)
        return given

    def folded(self) -> keras.Model:
        """The net with W + A B / r for W, which needs no adapters and gives the same."""
        sums = self._sums()
        same = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(self.net))
        same.set_weights([keras.ops.convert_to_numpy(sums.get(id(weight), weight)) for weight in self.net.weights])
        return same


@keras.saving.register_keras_serializable("keras_lt")
class Bottleneck(SavedByArguments, keras.layers.Layer):
    """s Up(ReLU(Down(LN(tokens)))), [B,T,D] -> [B,T,D]; it begins as zero, with s = 1 (arXiv:2205.13535, eq. 3)."""

    def __init__(self, bottleneck: int, **kwargs):
        super().__init__(**kwargs)
        self.bottleneck = bottleneck

    def build(self, shape):
        """Makes the layers for tokens of a width D."""
        own = {"dtype": self.dtype_policy}
        random = keras.initializers.VarianceScaling(**LINEAR)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm", **own)
        self.down = keras.layers.Dense(
            self.bottleneck, activation="relu", kernel_initializer=random, name="down", **own
        )
        self.up = keras.layers.Dense(shape[-1], kernel_initializer="zeros", name="up", **own)
        for layer, width in ((self.norm, shape[-1]), (self.down, shape[-1]), (self.up, self.bottleneck)):
            layer.build((*shape[:-1], width))
        self.scale = self.add_weight((), "ones", name="scale")

    def call(self, tokens):
        """[B,T,D] -> [B,T,D]."""
        return self.scale * self.up(self.down(self.norm(tokens)))


@keras.saving.register_keras_serializable("keras_lt")
class BottleneckNet(AroundNet):
    """AdaptFormer (Chen et al., arXiv:2205.13535) in every block: x + MLP(LN(x)) + `Bottleneck`(x).

    Args:
      bottleneck: units of each `Bottleneck`.
    """

    def __init__(self, net: keras.Model, bottleneck: int, **kwargs):
        super().__init__(net, **kwargs)
        self.bottleneck = bottleneck
        self.adapters = [
            Bottleneck(bottleneck, name=f"adapter_{i}", dtype=net.dtype_policy)
            for i in range(len(self.pieces.blocks(net)))
        ]

    def build(self, images_shape):
        """Makes the adapters for the width of each block's tokens."""
        for adapter, attention in zip(self.adapters, self.pieces.attentions(self.net), strict=True):
            adapter.build((None, None, attention.query_dense.kernel.shape[0]))

    def call(self, images):
        """Images -> what the net gives, with what the adapters add."""
        return self.pieces.with_added(self.net, images, self.adapters)


def adapted(backbone: keras.Model, around: Callable[..., AroundNet], **options) -> keras.Model:
    """A backbone of a net of tokens with adapters in it, which shares its weights and freezes them.

    Raises:
      ValueError: it is none whose blocks are known.
    """
    images, body, pool = backbone.layers[0].output, backbone.layers[1], backbone.layers[-1]
    if len(backbone.layers) != 3 or token_net(body) is None:
        raise ValueError(f"Adapters need a backbone whose blocks of tokens are known. Received: {backbone.name}")
    return keras.Model(images, pool(around(body, name="adapted", **options)(images)), name=backbone.name)


def blocks_of(backbone: keras.Model) -> int:
    """How many blocks a backbone of a net of tokens has."""
    body = backbone.layers[1]
    return len(token_net(body).blocks(body))


def folded(backbone: keras.Model) -> keras.Model:
    """The same without adapters, where the net's own weights can have what they learned; else the backbone itself."""
    layers = getattr(backbone, "layers", ())
    if len(layers) != 3 or not isinstance(layers[1], LowRankNet):
        return backbone
    images, pool = keras.Input(backbone.input_shape[1:], name="images"), layers[-1]
    net = layers[1].folded()
    return keras.Model(images, pool(net(as_input(net, images))), name=backbone.name)
