"""Classifiers on long-tailed embeddings beside a logistic regression: seconds to fit, accuracy."""

import argparse
import warnings
from collections.abc import Iterator

import numpy as np
from threadpoolctl import threadpool_limits

from tools.benchmarks.timing import duration, use_threads

TEST_PER_CLASS = 10
NOISE, SHARED, SHARED_NOISE = 2.5, 32, 0.5  # per feature, where those of a class mean vary by 1; 32 shared directions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command line."""
    parser.add_argument("--examples", type=int, default=50_000, help="N, of the training set")
    parser.add_argument("--width", type=int, default=768, help="D, features per example")
    parser.add_argument(
        "--classes", type=int, default=1_000, help="C, the largest with 100 times the smallest's examples"
    )
    parser.add_argument("--methods", nargs="*", default=["crt"], help="of LongTailClassifier")
    parser.add_argument("--epochs", type=int, help="of LongTailClassifier; by default its own")
    parser.add_argument("--tol", type=float, default=1e-4, help="of the logistic regression: by which it stops")
    parser.add_argument("--max_iter", type=int, default=100, help="of the logistic regression; 0 leaves it out")
    parser.add_argument(
        "--threads", type=int, default=1, help="of both libraries; 1 is timed by the process's own clock"
    )
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> None:
    """A row per classifier; the test set has as many examples of every class."""
    clock = use_threads(arguments.threads)
    X, y, X_test, y_test = embeddings(
        arguments.examples, arguments.width, arguments.classes, np.random.default_rng(arguments.seed)
    )
    counts = np.bincount(y)
    print(f"N = {len(y):,}, D = {arguments.width}, C = {arguments.classes}, {counts.max()} to {counts.min()} per class")
    print(f"{'':40}{'fit, s':>8}{'predict, s':>12}{'all, %':>8}{'few, %':>8}")
    few = np.isin(y_test, np.argsort(counts)[: max(1, arguments.classes // 3)])  # the third with the fewest examples
    for name, classifier in rivals(arguments):
        with threadpool_limits(arguments.threads):
            fit = duration(lambda: classifier.fit(X, y), clock)  # noqa: B023 - called at once
            start = clock()
            right = classifier.predict(X_test) == y_test
            predict = clock() - start
        scores = f"{100 * right.mean():8.1f}{100 * right[few].mean():8.1f}"
        more = f"  {classifier[-1].n_iter_[0]} iterations" if hasattr(classifier, "steps") else ""
        print(f"{name:40}{fit:8.1f}{predict:12.2f}{scores}{more}", flush=True)


def rivals(arguments: argparse.Namespace) -> Iterator[tuple[str, object]]:
    """Names and classifiers, all of which standardise the features."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    from keras_lt.estimators import LongTailClassifier  # noqa: PLC0415

    warnings.simplefilter("ignore", ConvergenceWarning)  # its iterations are printed
    for method in arguments.methods:
        yield (
            f"LongTailClassifier {method}",
            LongTailClassifier(method, epochs=arguments.epochs or "auto", random_state=arguments.seed),
        )
    if arguments.max_iter:
        logistic = LogisticRegression(class_weight="balanced", max_iter=arguments.max_iter, tol=arguments.tol)
        yield "LogisticRegression balanced", make_pipeline(StandardScaler(), logistic)


def embeddings(examples: int, width: int, classes: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Training features [N, D] and labels [N] with a long tail, and test features and labels, of every class as many.

    Examples vary around the means of their classes, more in some directions, which are the same in all classes.
    """
    counts = np.power(100.0, -np.arange(classes) / max(classes - 1, 1))
    counts = np.maximum(1, np.round(counts / counts.sum() * examples)).astype(int)
    means = rng.normal(size=(classes, width)).astype(np.float32)
    shared = SHARED_NOISE * rng.normal(size=(SHARED, width)).astype(np.float32)

    def of(labels: np.ndarray) -> np.ndarray:
        own = NOISE * rng.normal(size=(len(labels), width)).astype(np.float32)
        return means[labels] + own + rng.normal(size=(len(labels), SHARED)).astype(np.float32) @ shared

    train, test = np.repeat(np.arange(classes), counts), np.repeat(np.arange(classes), TEST_PER_CLASS)
    return of(train), train, of(test), test
