"""Speed of reading, decoding and augmenting photographs, beside Pillow, and whether a training waits for it."""

import argparse
import dataclasses
import math
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageEnhance

from keras_lt.backbones import build
from keras_lt.datasets import Split
from keras_lt.datasets.long_tailed import IMAGENET_MEAN, IMAGENET_STD
from keras_lt.datasets.records import ShardedRecords
from keras_lt.input_pipeline import Stream, training_batches
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import Preprocessing

SIZES = {(500, 375): 95, (256, 256): 93}  # width and height -> JPEG quality: about 60 and 20 kB
AUGMENTATIONS = ("resized_crop_flip", "imagenet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command line."""
    parser.add_argument("--image_size", type=int, default=224, help="pixels, of the network's input")
    parser.add_argument("--images", type=int, default=256, help="files")
    parser.add_argument("--batch_size", type=int, default=32, help="images")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of each stream and round")
    parser.add_argument("--rounds", type=int, default=3, help="in which all streams take turns; the best counts")
    parser.add_argument("--determinism", action=argparse.BooleanOptionalAction, default=True, help="as in training")
    parser.add_argument("--backbones", nargs="+", default=["resnet8"], help="the nets whose training may wait")


@dataclasses.dataclass(frozen=True)
class Rate:
    """Images per second of processor time, that is per core, and of wall time."""

    per_core: float
    wall: float


def run(arguments: argparse.Namespace) -> None:
    """Images per second per core of ours and of Pillow's, and how long each net's training waits for images."""
    if arguments.determinism:
        tf.config.experimental.enable_op_determinism()
    for size, quality in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = _write_photographs(pathlib.Path(folder), arguments.images, size=size, quality=quality)
            kilobytes = np.mean([pathlib.Path(path).stat().st_size for path in paths]) / 1e3
            print(
                f"\n{size[0]}x{size[1]}, {kilobytes:.0f} kB -> {arguments.image_size} pixels, batch "
                f"{arguments.batch_size}, determinism {'on' if arguments.determinism else 'off'}; images per second"
            )
            print(f"{'':36}{'per core':>10}{'/ Pillow':>10}{'wall':>10}")
            for augmentation in AUGMENTATIONS:
                _compare(_rivals(paths, augmentation, arguments), augmentation, arguments)
            for backbone in arguments.backbones:
                _wait(backbone, _batches(_files(paths), "imagenet", arguments), arguments)


def _compare(rivals: dict[str, Callable[[], Iterator]], augmentation: str, arguments: argparse.Namespace) -> None:
    """Prints a row per rival: the best of rounds in which all take turns."""
    best = dict.fromkeys(rivals, Rate(0.0, 0.0))
    for _ in range(arguments.rounds):
        for name, batches in rivals.items():
            best[name] = max(best[name], _rate(batches(), seconds=arguments.seconds), key=lambda rate: rate.per_core)
    for name, rate in best.items():
        ratio = rate.per_core / best["Pillow and NumPy"].per_core
        print(f"{f'{augmentation}, {name}':36}{rate.per_core:10.0f}{ratio:10.2f}{rate.wall:10.0f}", flush=True)


def _rate(batches: Iterator, *, seconds: float) -> Rate:
    for _ in range(3):  # past tracing, and what is prefetched
        next(batches)
    wall, processor = time.perf_counter(), time.process_time()
    images = 0
    while time.perf_counter() - wall < seconds:
        images += len(next(batches)[0])
    return Rate(images / (time.process_time() - processor), images / (time.perf_counter() - wall))


def _rivals(paths: list[str], augmentation: str, arguments: argparse.Namespace) -> dict[str, Callable[[], Iterator]]:
    return {
        "ours, files": lambda: iter(_batches(_files(paths), augmentation, arguments)),
        "ours, records": lambda: iter(_batches(_records(paths), augmentation, arguments)),
        "Pillow and NumPy": lambda: _pillow_batches(paths, augmentation, arguments),
    }


def _files(paths: list[str]):
    """A split of the photographs, in two classes."""
    return Split(np.array(paths), np.arange(len(paths)) % 2)


def _records(paths: list[str]):
    """The same split as a prepared data set has it: stretches of one file."""
    images = [pathlib.Path(path).read_bytes() for path in paths]
    shard = pathlib.Path(paths[0]).with_name("shard")
    shard.write_bytes(b"".join(images))
    length = np.array([len(image) for image in images])
    records = ShardedRecords([str(shard)], np.zeros(len(images), int), np.cumsum(length) - length, length, paths)
    return Split(records, np.arange(len(paths)) % 2)


def _batches(split, augmentation: str, arguments: argparse.Namespace):
    """The stream that training takes its batches from."""
    preprocessing = Preprocessing(arguments.image_size, IMAGENET_MEAN, IMAGENET_STD, augmentation=augmentation)
    recipe = Recipe(epochs=1_000, batch_size=arguments.batch_size, steps_per_epoch=1_000)
    return training_batches(split, preprocessing, Stream(recipe, np.bincount(split.labels)))


def _wait(name: str, batches, arguments: argparse.Namespace) -> None:
    """Prints which part of a net's training goes by until the next batch is there."""
    backbone = build(name, image_size=arguments.image_size)
    model = keras.Model(backbone.input, keras.layers.Dense(2)(backbone.output))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    elements = iter(batches)
    model.train_on_batch(*next(elements))  # traces
    begin, waited, steps = time.perf_counter(), 0.0, 0
    while time.perf_counter() - begin < 2 * arguments.seconds:
        start = time.perf_counter()
        images, labels = next(elements)
        waited += time.perf_counter() - start
        model.train_on_batch(images, labels)
        steps += 1
    elapsed = time.perf_counter() - begin
    speed = steps * arguments.batch_size / elapsed
    print(f"{name} trains on {speed:.0f} images per second and waits {waited / elapsed:.0%} of the time")


def _pillow_batches(paths: list[str], augmentation: str, arguments: argparse.Namespace) -> Iterator[tuple[np.ndarray]]:
    """The reference's processing as its libraries do it, in one process: batches float32 [B, 3, S, S]."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    rng = np.random.default_rng(0)
    while True:
        images = [
            _pillow_image(paths[i], rng, size=arguments.image_size, jitter=augmentation == "imagenet")
            for i in rng.integers(len(paths), size=arguments.batch_size)
        ]
        scaled = [np.asarray(image).transpose(2, 0, 1).astype(np.float32) / 255 for image in images]
        yield (np.stack([(image - mean) / std for image in scaled]),)


def _pillow_image(path: str, rng: np.random.Generator, *, size: int, jitter: bool):
    """Random resized crop, flip, and colour jitter of 0.4."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    left, top, width, height = _window(image.width, image.height, rng)
    image = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if jitter:
        for enhance in rng.permutation([ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]):
            image = enhance(image).enhance(rng.uniform(0.6, 1.4))
    return image


def _window(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, width and height of a crop of 8 to 100 % of the area; the whole image where ten draws do not fit."""
    for _ in range(10):
        area = rng.uniform(0.08, 1.0) * width * height
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(width - w + 1), rng.integers(height - h + 1), w, h
    return 0, 0, width, height


def _write_photographs(folder: pathlib.Path, number: int, *, size: tuple[int, int], quality: int) -> list[str]:
    """JPEGs of smooth noise at several scales, which pack about as photographs do."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(number):
        pixels = np.full((size[1], size[0], 3), 128.0)
        for cells, amplitude in ((4, 50), (16, 25), (64, 12), (256, 8)):
            coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
            pixels += (np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float64) / 127.5 - 1) * amplitude
        paths.append(str(folder / f"{i:05}.jpg"))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=quality)
    return paths
