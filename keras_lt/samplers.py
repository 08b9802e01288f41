"""Samplers: class counts [C] -> the probability [C] of drawing each class, one row of an [E, C] table per epoch.

A sampler is a function `(class_counts, progress) -> [C]`, where progress moves from 0 to 1 over training.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from keras_lt.arguments import as_numbers, check_kind, checked
from keras_lt.counts import check_counts, check_vector, effective_numbers
from keras_lt.registry import Entry, check_choice, check_numbers, member

Sampler = Callable[[npt.ArrayLike, float], np.ndarray]

ROW_SUM_TOLERANCE = 1e-6


def power_probabilities(class_counts: npt.ArrayLike, q: float, *, absent: str = "zero") -> np.ndarray:
    """Probability of drawing each class when p_j is proportional to n_j ** q (arXiv:1910.09217, equation 1).

    >>> power_probabilities([90, 10], 1), power_probabilities([90, 10], 0.5), power_probabilities([90, 10], 0)
    (array([0.9, 0.1]), array([0.75, 0.25]), array([0.5, 0.5]))

    Args:
      class_counts: training images per class, [C].
      q: 1 instance-balanced, 0.5 square-root, 0 class-balanced; any q >= 0.
      absent: what a class without images gets, "zero" probability or an "error".

    Returns: probabilities that sum to one, [C].

    Raises:
      ValueError: for counts or a q that are negative or not finite.
    """
    check_numbers(q=q)
    counts = _counts(class_counts, absent)
    # Relative to the largest count, so that a large q does not overflow.
    return _normalized(counts, (counts / counts.max()) ** q)


def progressive_probabilities(class_counts: npt.ArrayLike, progress: float, *, absent: str = "zero") -> np.ndarray:
    """Moves linearly from instance-balanced (progress 0) to class-balanced (1), [C] -> [C] (equation 2).

    >>> progressive_probabilities([90, 10], 0.5)
    array([0.7, 0.3])
    """
    check_kind("progress", progress, float)
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be in [0, 1]. Received: progress={progress}")
    start = power_probabilities(class_counts, 1.0, absent=absent)
    end = power_probabilities(class_counts, 0.0, absent=absent)
    return (1 - progress) * start + progress * end


def effective_number_probabilities(
    class_counts: npt.ArrayLike, progress: float = 0.0, *, beta: float = 0.9999, absent: str = "zero"
) -> np.ndarray:
    """Every image is drawn with weight 1 / E_n, E_n = (1 - beta^n) / (1 - beta) (Cui et al., arXiv:1901.05555).

    So p_j is proportional to n_j / E_j: instance-balanced for beta 0, and towards class-balanced as beta nears 1.

    Args:
      class_counts: training images per class, [C].
      progress: not used; every sampler takes it.
      beta: in [0, 1).
      absent: what a class without images gets, "zero" probability or an "error".

    Returns: probabilities that sum to one, [C].
    """
    check_numbers(beta=beta, below=1)
    counts = _counts(class_counts, absent)
    return _normalized(counts, counts / effective_numbers(counts, beta))


def reversed_probabilities(class_counts: npt.ArrayLike, progress: float = 0.0, *, absent: str = "zero") -> np.ndarray:
    """The rarer, the likelier: p_j proportional to n_max / n_j (BBN, arXiv:1912.02413), [C] -> [C].

    >>> reversed_probabilities([30, 10])
    array([0.25, 0.75])
    """
    counts = _counts(class_counts, absent)
    return _normalized(counts, counts.max() / np.maximum(counts, 1))


def mixture(weights: Mapping[str | Sampler, float]) -> Sampler:
    """A sampler that is a weighted mean of others.

    >>> mixture({"instance_balanced": 0.75, "reversed": 0.25})([30, 10], 0.0)
    array([0.625, 0.375])

    Args:
      weights: sampler, or its name in `SAMPLERS` -> weight; weights are >= 0 and sum to one.

    Returns: the sampler (class_counts, progress) -> [C].
    """
    values = check_vector("weights", list(weights.values()))
    _check_sum("weights", values)
    samplers = [sampler_entry(sampler) for sampler in weights]

    def mixed(class_counts: npt.ArrayLike, progress: float) -> np.ndarray:
        return values @ np.stack([sampler(class_counts, progress) for sampler in samplers])

    return mixed


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerEntry(Entry):
    """A sampler: (class_counts [C], progress) -> probabilities [C].

    Attributes:
      engine: of `resampling.sample_indices`, how its indices are drawn: "instance" takes every example once an epoch,
        "stratified" gives each class its share of every epoch, "weighted" draws independently.
    """

    engine: str = "weighted"


def _power(q: float) -> Sampler:
    return lambda class_counts, progress: power_probabilities(class_counts, q)


SAMPLERS: dict[str, SamplerEntry] = {
    "instance_balanced": SamplerEntry(_power(1.0), label="Instance-balanced", engine="instance"),
    "class_balanced": SamplerEntry(_power(0.0), label="Class-balanced", engine="stratified"),
    "square_root": SamplerEntry(_power(0.5), label="Square-root"),
    "power": SamplerEntry(
        lambda class_counts, progress, *, q=0.5: power_probabilities(class_counts, q), label="Power of the counts"
    ),
    "progressive": SamplerEntry(
        lambda class_counts, progress: progressive_probabilities(class_counts, progress, absent="zero"),
        label="Progressively balanced",
    ),
    "effective_number": SamplerEntry(
        lambda class_counts, progress, *, beta=0.9999: effective_number_probabilities(class_counts, beta=beta),
        label="Effective number",
    ),
    "reversed": SamplerEntry(lambda class_counts, progress: reversed_probabilities(class_counts), label="Reversed"),
}


def sampler_entry(sampler: str | Sampler) -> SamplerEntry:
    """The entry of a name in `SAMPLERS`, with parameters such as "power:q=0.33", or of a function of one's own."""
    if isinstance(sampler, str | Entry):
        return member(SAMPLERS, sampler, what="sampler")
    if not callable(sampler):
        raise ValueError(f"sampler must be a function or one of {', '.join(SAMPLERS)}. Received: sampler={sampler!r}")
    return SamplerEntry(sampler)


@checked
def probability_table(
    sampler: str | Sampler,
    class_counts: npt.ArrayLike,
    epochs: int,
    *,
    progress: str = "reference",
    absent: str = "zero",
) -> np.ndarray:
    """One row of class probabilities per epoch, [E, C].

    >>> probability_table("progressive", [90, 10], epochs=3)
    array([[0.9, 0.1],
           [0.7, 0.3],
           [0.5, 0.5]])

    Args:
      sampler: a function (class_counts, progress) -> [C], or a name in `SAMPLERS`, with parameters.
      class_counts: training images per class, [C].
      epochs: E.
      progress: of epoch e = 0 .. E-1: "reference", e / (E - 1), whose last row is the schedule's end; or "paper",
        e / E, which stops one step short of it.
      absent: what a class without images gets, "zero" probability or an "error".

    Raises:
      ValueError: for an unknown name, bad counts, or a sampler whose row is not a distribution over the classes.
    """
    sampler = sampler_entry(sampler)
    check_numbers(epochs=epochs, at_least=1)
    check_choice(("reference", "paper"), progress=progress)
    counts = _counts(class_counts, absent)
    last = epochs if progress == "paper" else max(epochs - 1, 1)
    table = check_probabilities([sampler(class_counts, epoch / last) for epoch in range(epochs)])
    if table.shape != (epochs, counts.size):
        raise ValueError(f"a sampler must return [C] = [{counts.size}]. Received: {list(table.shape[1:])}")
    return table


def _counts(class_counts: npt.ArrayLike, absent: str) -> np.ndarray:
    """The counts as `check_counts` gives them; absent: "error" refuses a class without images."""
    counts = check_counts(class_counts)
    check_choice(("zero", "error"), absent=absent)
    if absent == "error" and not counts.all():
        raise ValueError(f"every class must have images. Received: 0 for class {np.flatnonzero(counts == 0)[0]}")
    return counts


def check_probabilities(probabilities: npt.ArrayLike) -> np.ndarray:
    """The probabilities as float64, [C] or [E, C], once every row is known to be a distribution.

    Raises:
      ValueError: for a negative or non-finite probability, or a row that does not sum to one, which it names.
    """
    table = as_numbers("probabilities", probabilities).astype(np.float64)
    if table.ndim not in (1, 2) or table.size == 0:
        raise ValueError(f"probabilities must be [C] or [E, C]. Received: shape={table.shape}")
    for index, row in enumerate(np.atleast_2d(table)):
        name = f"row {index} of probabilities"
        _check_sum(name, check_vector(name, row))
    return table


def _check_sum(name: str, vector: np.ndarray) -> None:
    if abs(vector.sum() - 1) > ROW_SUM_TOLERANCE:
        raise ValueError(f"{name} must sum to 1. Received: sum={vector.sum()}")


def _normalized(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights to probabilities; a class without images is never drawn, also where its weight is 0**0 = 1."""
    weights = np.where(counts > 0, weights, 0.0)
    return weights / weights.sum()
