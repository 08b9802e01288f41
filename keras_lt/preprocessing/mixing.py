"""MixUp and CutMix: a batch blended with itself in another order, and labels that say so."""

import tensorflow as tf

from keras_lt.labels import MixedLabels
from keras_lt.preprocessing.augmentations import fill_window

fold_in = tf.random.experimental.stateless_fold_in


def mix(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, mixup: float, cutmix: float
) -> tuple[tf.Tensor, MixedLabels]:
    """Mixes a batch by MixUp or CutMix, where both are given by one of them at random.

    Args:
      images: float32 [B, S, S, 3].
      labels: class ids, [B].
      seed: int [2], the batch's: one weight and one order for all of it.
      mixup, cutmix: alpha of the weight's Beta(alpha, alpha); 0 is without.
    Returns: images as they came, and their labels.
    """
    order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(labels)[0]), fold_in(seed, 9))
    others, other_labels = tf.gather(images, order), tf.gather(labels, order)

    def by_mixup():
        weight = _beta(mixup, fold_in(seed, 10))
        return blend(images, others, weight), weight

    def by_cutmix():
        height, width = images.shape[-3:-1]
        window = cut_window((height, width), _beta(cutmix, fold_in(seed, 11)), fold_in(seed, 12))
        pasted = tf.cast(window[2] * window[3], tf.float32) / (height * width)
        return fill_window(images, window, others), 1.0 - pasted

    if mixup and cutmix:
        images, weight = tf.cond(tf.random.stateless_uniform((), fold_in(seed, 13)) < 0.5, by_mixup, by_cutmix)
    else:
        images, weight = by_mixup() if mixup else by_cutmix()
    return images, mixed_labels(labels, other_labels, weight)


def blend(images: tf.Tensor, others: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """MixUp (Zhang et al., 2018): weight * images + (1 - weight) * others."""
    return others + weight * (images - others)


def cut_window(size: tuple[int, int], weight: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """CutMix's window (Yun et al., 2019): [top, left, height, width], int [4], around a uniform centre.

    Args:
      size: height and width of the images.
      weight: of what is left of the image, before the window is clipped to it.
    """
    size = tf.constant(size, tf.int32)
    half = tf.cast(tf.cast(size, tf.float32) * tf.sqrt(1.0 - weight), tf.int32) // 2
    centre = tf.cast(tf.random.stateless_uniform((2,), seed) * tf.cast(size, tf.float32), tf.int32)
    start, end = tf.maximum(centre - half, 0), tf.minimum(centre + half, size)
    return tf.concat([start, end - start], 0)


def mixed_labels(labels: tf.Tensor, others: tf.Tensor, weight: tf.Tensor) -> MixedLabels:
    """Of class ids [B] of two images each, the first of that weight."""
    larger, smaller = tf.cond(weight >= 0.5, lambda: (labels, others), lambda: (others, labels))
    return MixedLabels(larger, smaller, tf.fill(tf.shape(labels), tf.maximum(weight, 1.0 - weight)))


def _beta(alpha, seed):
    """One draw of Beta(alpha, alpha), a quotient of gammas; by logarithms, as those of a small alpha underflow."""
    powers = tf.math.log(1.0 - tf.random.stateless_uniform((2,), fold_in(seed, 0))) / alpha
    logarithms = tf.math.log(tf.random.stateless_gamma((2,), fold_in(seed, 1), alpha + 1.0)) + powers
    return tf.sigmoid(logarithms[0] - logarithms[1])
