"""Numbers over classes: means that a few bad ones pull down, and accuracy where they are not equally frequent."""

import numpy as np
import numpy.typing as npt

from keras_lt.counts import check_counts, check_vector


def class_means(correct: np.ndarray, total: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Macro-F1, and the harmonic mean, geometric mean and minimum of the per-class accuracies.

    With n_c examples of class c, of which t_c are predicted correctly, and p_c examples predicted to be c:

      macro_f1: mean of 2 t_c / (n_c + p_c), over classes with an example or a prediction (Opitz and Burst, 2019).
      harmonic_mean: K / sum(n_c / t_c) over the K classes with an example (Du and Wu, CVPR 2023).
      geometric_mean: product(t_c / n_c) ** (1 / K) over these (Kubat and Matwin, 1997).
      worst_class: min(t_c / n_c) over these.

    The last three are 0 as soon as one class is never predicted correctly. The arithmetic mean is "class_mean" of
    `shot_accuracy`.

    Args:
      correct, total, predicted: t_c, n_c and p_c, [C].
    Returns: the four by name, in [0, 1]; NaN without an example.
    Raises:
      ValueError: shapes that differ, or sums that do not satisfy 0 <= correct <= total and correct <= predicted.
    """
    correct, total, predicted = np.asarray(correct), np.asarray(total), np.asarray(predicted)
    if not correct.shape == total.shape == predicted.shape or correct.ndim != 1:
        raise ValueError(
            "correct, total and predicted must all be [C]. "
            f"Received: shapes {correct.shape}, {total.shape} and {predicted.shape}"
        )
    if not ((correct >= 0) & (correct <= total) & (correct <= predicted)).all():
        raise ValueError(
            "0 <= correct <= total and correct <= predicted must hold. "
            f"Received: correct={correct}, total={total}, predicted={predicted}"
        )
    shown = total > 0
    if not shown.any():
        return dict.fromkeys(("macro_f1", "harmonic_mean", "geometric_mean", "worst_class"), float("nan"))
    either = total + predicted
    accuracies = correct[shown] / total[shown]
    with np.errstate(divide="ignore"):  # 1 / 0 and log 0 are the infinities that make a mean 0
        return {
            "macro_f1": float((2 * correct[either > 0] / either[either > 0]).mean()),
            "harmonic_mean": float(1 / (1 / accuracies).mean()),
            "geometric_mean": float(np.exp(np.log(accuracies).mean())),
            "worst_class": float(accuracies.min()),
        }


def long_tailed_shares(class_counts: npt.ArrayLike, *, ratio: float = 25.0, reverse: bool = False) -> np.ndarray:
    """Class probabilities that fall by a factor `ratio` from the first class to the last, geometrically, [C].

    The test distributions of LADE (Hong et al., CVPR 2021) and SADE (Zhang et al., NeurIPS 2022): classes in the order
    of their training images, the most frequent first, or last where it is reversed.

    >>> keras_lt.metrics.long_tailed_shares([500, 50, 5], ratio=4).round(3)
    array([0.571, 0.286, 0.143])

    Args:
      class_counts: training images per class, [C].
      ratio: of the most frequent class's probability to the least frequent one's.
      reverse: whether the class with the fewest training images is the most frequent one.
    Raises:
      ValueError: a ratio below 1.
    """
    if not 1 <= ratio < np.inf:
        raise ValueError(f"ratio must be a number of at least 1. Received: ratio={ratio}")
    counts = check_counts(class_counts)
    places = np.empty(counts.size)
    places[np.argsort(-counts, kind="stable")] = np.linspace(0, 1, counts.size)
    shares = ratio ** (places - 1 if reverse else -places)
    return shares / shares.sum()


def accuracy_under(distribution: npt.ArrayLike, per_class: npt.ArrayLike) -> float:
    """Accuracy where classes are as frequent as that, of those whose accuracy is known; NaN where it is of none.

    Args:
      distribution: probability of each class, [C].
      per_class: accuracy of each class, [C]; NaN for one without examples.
    """
    per_class = np.asarray(per_class, np.float64)
    shares = check_vector("distribution", distribution, classes=per_class.size)
    known = ~np.isnan(per_class)
    return float(per_class[known] @ shares[known] / shares[known].sum()) if shares[known].any() else float("nan")
