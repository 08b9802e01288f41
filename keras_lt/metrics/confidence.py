"""Confidence: whether a classifier is correct as often as it is confident, and unsure of images of no class."""

import dataclasses

import numpy as np
import numpy.typing as npt

from keras_lt.arguments import as_numbers

ECE_BINS = 15  # of equal width, as Guo et al. (2017)
OPEN_THRESHOLD = 0.1  # confidence below which Liu et al. (2019) take an image for open


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits [..., C], in their precision."""
    logits = np.asarray(logits)
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Sums over examples in bins of confidence (0, 1/15], (1/15, 2/15], ..., (14/15, 1].

    Attributes:
      count: examples per bin, int64 [15].
      correct: those predicted correctly, int64 [15].
      confidence_sum: of their confidences, float64 [15].
    """

    count: np.ndarray
    correct: np.ndarray
    confidence_sum: np.ndarray

    @classmethod
    def of(cls, confidences: np.ndarray, is_correct: np.ndarray) -> "Reliability":
        """The bins of examples with these confidences in (0, 1], correct where `is_correct`, both [N]."""
        edges = np.linspace(0, 1, ECE_BINS + 1)
        bins = np.digitize(_known(confidences), edges[1:-1], right=True)
        return cls(
            count=np.bincount(bins, minlength=ECE_BINS),
            correct=np.bincount(bins[is_correct], minlength=ECE_BINS),
            confidence_sum=np.bincount(bins, np.asarray(confidences, np.float64), minlength=ECE_BINS),
        )

    @property
    def accuracy(self) -> np.ndarray:
        """Share of each bin's examples that are predicted correctly, [15]; NaN in an empty bin."""
        return self._mean(self.correct)

    @property
    def confidence(self) -> np.ndarray:
        """Mean confidence of each bin's examples, [15]; NaN in an empty bin."""
        return self._mean(self.confidence_sum)

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al., 2015), sum_b (count_b / N) |accuracy_b - confidence_b|.

        NaN without an example.
        """
        examples = self.count.sum()
        return float(np.abs(self.correct - self.confidence_sum).sum() / examples) if examples else float("nan")

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        return np.divide(sums, self.count, out=np.full(ECE_BINS, np.nan), where=self.count > 0)


def _known(confidences: npt.ArrayLike) -> np.ndarray:
    confidences = as_numbers("confidences", confidences)
    if np.isnan(confidences).any():
        raise ValueError(f"confidences must be numbers. Received: NaN for example {np.isnan(confidences).argmax()}")
    return confidences


def open_f_measure(
    is_correct: np.ndarray, confidences: np.ndarray, open_confidences: np.ndarray, *, threshold: float = OPEN_THRESHOLD
) -> float:
    """The F-measure of Liu et al. (CVPR 2019), in which an image of low confidence is said to be of no class.

    TP are known images that are predicted correctly with confidence >= threshold, FP all other known images, and FN the
    open images of confidence >= threshold; F = 2 TP / (2 TP + FP + FN). This is what their code computes since January
    2020; before, it left known images of low confidence out of FP, which the paper's figures still do. With C classes
    no confidence is below 1 / C, so that a threshold there rejects nothing.

    Args:
      is_correct: whether the prediction of a known image is correct, bool [N].
      confidences: largest softmax probability of the known images, [N].
      open_confidences: of the open images, [M].
    Returns: in [0, 1]; NaN without known or without open images.
    Raises:
      ValueError: a confidence that is NaN.
    """
    confidences, open_confidences = _known(confidences), _known(open_confidences)
    if not len(confidences) or not len(open_confidences):
        return float("nan")
    correct = np.count_nonzero(np.asarray(is_correct) & (confidences >= threshold))
    taken = np.count_nonzero(open_confidences >= threshold)
    return float(2 * correct / (correct + len(confidences) + taken))


def auroc(confidences: np.ndarray, open_confidences: np.ndarray) -> float:
    """Area under the ROC curve of confidence, as a detector of open images.

    That is the probability that a known image has the larger confidence of the two, where equal ones count half
    (Hanley and McNeil, 1982; as a measure of this task, Hendrycks and Gimpel, 2017).

    Args:
      confidences, open_confidences: of the known images, [N], and of the open ones, [M].
    Returns: in [0, 1]; NaN without known or without open images.
    Raises:
      ValueError: a confidence that is NaN, which would be larger than any other.
    """
    confidences, open_confidences = _known(confidences), _known(open_confidences)
    if not len(confidences) or not len(open_confidences):
        return float("nan")
    ordered = np.sort(open_confidences)
    below = np.searchsorted(ordered, confidences, side="left").sum()
    not_above = np.searchsorted(ordered, confidences, side="right").sum()
    return float((below + not_above) / (2 * len(confidences) * len(open_confidences)))
