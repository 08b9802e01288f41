"""Whether a classifier's confidence tells images of its classes from images of none, the open ones."""

import numpy as np

OPEN_THRESHOLD = 0.1  # confidence below which Liu et al. (2019) take an image for open


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
    """
    if not len(confidences) or not len(open_confidences):
        return float("nan")
    correct = np.count_nonzero(np.asarray(is_correct) & (np.asarray(confidences) >= threshold))
    taken = np.count_nonzero(np.asarray(open_confidences) >= threshold)
    return float(2 * correct / (correct + len(confidences) + taken))


def auroc(confidences: np.ndarray, open_confidences: np.ndarray) -> float:
    """Area under the ROC curve of confidence, as a detector of open images.

    That is the probability that a known image has the larger confidence of the two, where equal ones count half
    (Hanley and McNeil, 1982; as a measure of this task, Hendrycks and Gimpel, 2017).

    Args:
      confidences, open_confidences: of the known images, [N], and of the open ones, [M].
    Returns: in [0, 1]; NaN without known or without open images.
    """
    if not len(confidences) or not len(open_confidences):
        return float("nan")
    ordered = np.sort(open_confidences)
    below = np.searchsorted(ordered, confidences, side="left").sum()
    not_above = np.searchsorted(ordered, confidences, side="right").sum()
    return float((below + not_above) / (2 * len(confidences) * len(open_confidences)))
