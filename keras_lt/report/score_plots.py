"""Plots of accuracy by group with its intervals, and of confidence against accuracy."""

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from keras_lt.metrics import Reliability, accuracy_under, long_tailed_shares
from keras_lt.report.cells import in_lines
from keras_lt.report.figures import SIZE, Plot, accuracy_rows, add_legend, lay_grid, new_axes, render
from keras_lt.report.intervals import Ends
from keras_lt.report.style import GROUP_LINES, GROUP_SHADES, INK, PAPER, Style
from keras_lt.report.tables import as_number, display_name, percent

ROW = 0.3  # inches
BEHIND_TEXT = {"facecolor": PAPER, "alpha": 0.75, "linewidth": 0, "pad": 1.5}
TEST_RATIOS = (50, 25, 10, 5, 2, 1)  # of SADE's tables
LEAST_EXAMPLES = 5  # of a bin of confidence: of fewer, accuracy is chance


def draw_group_accuracy(
    classifiers: Mapping[str, Mapping],
    *,
    styles: Mapping[str, Style],
    intervals: Mapping[str, Ends],
    published: Mapping[str, Mapping[str, float]],
) -> Plot:
    """A panel per group and one for all, a dot per classifier.

    Args:
      classifiers: of results.
      intervals: classifier -> score -> ends; a classifier that is missing has a dot alone.
      published: classifier -> score -> published fraction, likewise.
    """
    tests = {name: classifier["test"] for name, classifier in classifiers.items()}
    scores = [s for s in GROUP_LINES if not np.isnan([as_number(test.get(s)) for test in tests.values()]).all()]
    figure = accuracy_rows(list(tests), scores, width=SIZE[0], row=ROW)
    for ax, score in zip(figure.axes, scores, strict=True):
        for y, (name, test) in enumerate(tests.items()):
            color = styles[name].color
            if name in intervals:
                ax.hlines(y, *(100 * intervals[name][score]), color=color, linewidth=1.4)
            ax.plot(100 * as_number(test.get(score)), y, marker=styles[name].marker, color=color)
            if score in published.get(name, ()):
                ax.plot(100 * published[name][score], y, "d", markerfacecolor=PAPER, color=INK, label="published")
        ax.set_facecolor(to_rgba(INK, GROUP_SHADES.get(score, 0.0)))
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    if handles:
        figure.legend(handles[:1], labels[:1], loc="outside upper right", fontsize=8)
    lines = " Lines: 95% intervals over test examples." if intervals else ""
    return render(
        figure,
        name="group_accuracy",
        title="Accuracy by group",
        caption=f"Every panel has its own scale.{lines}",
        alt="Test accuracy on "
        + "; ".join(
            f"{s}: {', '.join(f'{display_name(n)} {percent(tests[n].get(s))}%' for n in tests)}" for s in scores
        )
        + ".",
    )


def draw_test_distributions(
    per_class: Mapping[str, np.ndarray], class_counts: np.ndarray, *, styles: Mapping[str, Style]
) -> Plot:
    """Accuracy over how the test set is distributed, from as long-tailed as in training to the other way round.

    Args:
      per_class: classifier -> accuracy of each class, [C]; NaN for a class without test examples.
      class_counts: training examples per class, [C].
    """
    ratios = [*((ratio, False) for ratio in TEST_RATIOS), *((ratio, True) for ratio in TEST_RATIOS[-2::-1])]
    distributions = [long_tailed_shares(class_counts, ratio=ratio, reverse=reverse) for ratio, reverse in ratios]
    figure, ax = new_axes("test accuracy in %")
    ends = []
    for name, accuracies in per_class.items():
        values = [100 * accuracy_under(distribution, accuracies) for distribution in distributions]
        ax.plot(values, **styles[name].line, label=display_name(name))
        ends.append(f"{display_name(name)} {values[0]:.1f}%, {values[len(TEST_RATIOS) - 1]:.1f}%, {values[-1]:.1f}%")
    ax.set_xticks(range(len(ratios)), [f"{'1:' * reverse}{ratio:g}{':1' * (not reverse)}" for ratio, reverse in ratios])
    ax.set_xlabel("test examples of the largest training class : of the smallest")
    add_legend(figure, ax)
    return render(
        figure,
        name="test_distributions",
        title="Accuracy over the test distribution",
        caption="What the same scores are worth where classes are not equally frequent: on the left as in training, on "
        "the right the rare classes are the frequent ones. Nothing is adapted to it; keras_lt.evaluate does that with "
        "--target_prior.",
        alt=f"Test accuracy at {TEST_RATIOS[0]}:1, 1:1 and 1:{TEST_RATIOS[0]}: {'; '.join(ends)}.",
    )


def draw_reliability(bins: Mapping[str, Mapping[str, Reliability]], *, styles: Mapping[str, Style]) -> Plot:
    """Accuracy over confidence, a panel for all examples and one for each group's; on the diagonal they agree.

    Args:
      bins: classifier -> "all" or group -> bins of confidence.
    """
    groups = [group for group in next(iter(bins.values())) if all(of[group].count.sum() for of in bins.values())]
    columns = min(len(groups), 2)
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(SIZE[0], 0.7 + 2.1 * rows))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, group in zip(panels, groups, strict=False):
        ax.plot([0, 100], [0, 100], color=INK, linewidth=0.8, dashes=(2, 2))
        for name, of in bins.items():
            seen = of[group].count >= LEAST_EXAMPLES
            ax.plot(
                100 * of[group].confidence[seen],
                100 * of[group].accuracy[seen],
                **styles[name].line,
                label=display_name(name),
                clip_on=not seen.any(),  # a line without points that is not clipped has no size to lay out by
            )
        errors = "\n".join(in_lines(f"{display_name(name)} {percent(of[group].error)}%") for name, of in bins.items())
        ax.text(0.04, 0.96, f"ECE\n{errors}", transform=ax.transAxes, va="top", size=7.5, bbox=BEHIND_TEXT)
        ax.set_title(group, size=9)
        ax.set_facecolor(to_rgba(INK, GROUP_SHADES.get(group, 0.0)))
        ax.set(xlim=(0, 100), ylim=(0, 100))
        lay_grid(ax, "both")
    for ax in panels[len(groups) :]:
        ax.remove()
    for ax in panels[len(groups) - columns : len(groups)]:  # the lowest of every column
        ax.tick_params(labelbottom=True)
    figure.supxlabel("confidence in %", size=9)
    figure.supylabel("test accuracy in %", size=9)
    add_legend(figure, panels[0])
    alt = [
        f"{display_name(name)} {', '.join(f'{group} {percent(of[group].error)}%' for group in groups)}"
        for name, of in bins.items()
    ]
    return render(
        figure,
        name="reliability",
        title="Confidence against accuracy",
        caption="Below the diagonal a classifier is overconfident. ECE, the expected calibration error: mean "
        f"distance to the diagonal over examples. Bins of fewer than {LEAST_EXAMPLES} are not drawn.",
        alt=f"Expected calibration error of {'; '.join(alt)}.",
    )
