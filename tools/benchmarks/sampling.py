"""Speed of the samplers, without reading an image."""

import argparse
import itertools
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from keras_lt import resampling, samplers

Stream = tuple[Callable[[], Iterable], int]  # what builds it, and how many indices one of its elements holds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command line."""
    parser.add_argument("--classes", type=int, nargs="+", default=[365, 8142], help="C, one table each")
    parser.add_argument("--examples_per_class", type=float, default=53.735, help="N / C")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured time of each stream")


def run(arguments: argparse.Namespace) -> None:
    """Indices per second of every way to draw a class-balanced stream, without reading an image."""
    for classes in arguments.classes:
        labels = long_tail(classes, arguments.examples_per_class)
        print(f"\nC = {classes}, N = {len(labels)}, {arguments.seconds:g} s each; M/s = million indices per second")
        print(f"{'':42}{'first index':>12}{'one by one':>13}{'of range':>10}{'batches':>13}")
        for name, streams in _sampling_rivals(labels, classes).items():
            try:
                measured = [measure(*stream, seconds=arguments.seconds) for stream in streams()]
            except ImportError as error:
                print(f"{name:42}{error}")
                continue
            # Beside each rival, so that both meet the same load.
            _, baseline = measure(_range_baseline, 4096, seconds=arguments.seconds / 2)
            (first, one_by_one), (_, batches) = measured[0], measured[-1]
            batched = f"{batches / 1e6:7.3f} M/s" if len(measured) > 1 else ""
            ratio = one_by_one / baseline
            print(f"{name:42}{first:10.2f} s{one_by_one / 1e6:9.3f} M/s{ratio:10.4f}{batched:>13}", flush=True)


def _sampling_rivals(labels: np.ndarray, classes: int) -> dict[str, Callable[[], list[Stream]]]:
    """Ways to draw: name -> the stream one by one, in blocks to leave out Python's own loop, and maybe as batches."""
    counts = np.bincount(labels, minlength=classes)
    examples = np.arange(len(labels))
    balanced = samplers.power_probabilities(counts, 0.0)
    progressive = samplers.probability_table("progressive", counts, 100_000_000 // len(labels))

    def engine(name: str, probabilities: np.ndarray) -> list[Stream]:
        def stream(batch_size: int | None) -> tf.data.Dataset:
            return resampling.sample_indices(
                labels, probabilities, num_samples=len(labels), seed=0, engine=name, batch_size=batch_size
            )

        return [(lambda: stream(None).batch(4096), 4096), (lambda: stream(4096), 4096)]

    def rejection() -> tf.data.Dataset:
        records = tf.data.Dataset.from_tensor_slices((examples, labels))
        return resampling.rejection_resample(records, class_counts=counts, probabilities=balanced, seed=0).batch(64)

    def tf_rejection() -> tf.data.Dataset:
        records = tf.data.Dataset.from_tensor_slices((examples, labels)).repeat()
        return records.rejection_resample(
            lambda index, label: tf.cast(label, tf.int32), balanced, counts / counts.sum(), seed=0
        ).batch(64)

    def sample_from_datasets() -> tf.data.Dataset:
        by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
        datasets = [tf.data.Dataset.from_tensor_slices(one).shuffle(len(one)).repeat() for one in by_class]
        return tf.data.Dataset.sample_from_datasets(datasets, balanced, seed=0).batch(64)

    def numpy_choice() -> Iterator[np.ndarray]:
        weights = (balanced / counts)[labels]
        generator = np.random.default_rng(0)
        while True:
            yield generator.choice(len(labels), len(labels), p=weights)

    def torch_sampler() -> Iterator[int]:
        import torch  # noqa: PLC0415

        weights = torch.from_numpy((balanced / counts)[labels])
        sampler = torch.utils.data.WeightedRandomSampler(weights, len(labels))
        return itertools.chain.from_iterable(itertools.repeat(sampler))

    return {
        "tf range, the baseline": lambda: [(_range_baseline, 4096)],
        "keras_lt weighted": lambda: engine("weighted", balanced),
        "keras_lt weighted, progressive": lambda: engine("weighted", progressive),
        "keras_lt stratified": lambda: engine("stratified", balanced),
        "keras_lt stratified, progressive": lambda: engine("stratified", progressive),
        "keras_lt instance": lambda: engine("instance", balanced),
        f"keras_lt rejection, accepts {resampling.accepted_fraction(counts, balanced):.0%}": lambda: [(rejection, 64)],
        f"tf rejection_resample, accepts {(counts / counts.sum() / balanced).min():.1%}": lambda: [(tf_rejection, 64)],
        "tf sample_from_datasets": lambda: [(sample_from_datasets, 64)],
        "numpy choice, an epoch at a time": lambda: [(numpy_choice, len(labels))],
        "torch WeightedRandomSampler": lambda: [(torch_sampler, 1)],
    }


def _range_baseline() -> Iterable:
    return tf.data.Dataset.range(2**62).batch(4096)


def long_tail(classes: int, examples_per_class: float) -> np.ndarray:
    """Labels [N] of a power law with at least two examples a class, as iNaturalist 2018 has them."""
    weights = 1 / np.arange(1, classes + 1)
    counts = np.maximum(2, classes * examples_per_class * weights / weights.sum()).astype(np.int64)
    counts[0] += max(0, round(classes * examples_per_class) - counts.sum())
    return np.random.default_rng(0).permutation(np.repeat(np.arange(classes), counts))


def measure(build: Callable[[], Iterable], size: int, *, seconds: float) -> tuple[float, float]:
    """Seconds until the first element, and examples per second after it, of elements that hold `size`."""
    begin = time.perf_counter()
    elements = iter(build())
    next(elements)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    number = elapsed = 0
    while elapsed < seconds:
        next(elements)
        number += 1
        elapsed = time.perf_counter() - begin
    return first, number * size / elapsed
