"""Calibration: whether a classifier is correct as often as it is confident."""

import dataclasses

import numpy as np

ECE_BINS = 15  # of equal width, as Guo et al. (2017)


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
        bins = np.digitize(confidences, edges[1:-1], right=True)
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
