"""The plots of one run, drawn without pyplot and its global state; two of them also without a run, in a notebook.

`IPython.display.Image(plot.png)` shows one.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.ticker
import numpy as np

from keras_lt.arguments import checked
from keras_lt.datasets import LongTailed
from keras_lt.report.details import RunDetails
from keras_lt.report.figures import Plot, Ranks, add_legend, mark, new_axes, render
from keras_lt.report.intervals import Ends
from keras_lt.report.score_plots import draw_group_accuracy, draw_reliability, draw_test_distributions
from keras_lt.report.style import BARS, GROUP_LINES, INK, RC, Style, styles_for
from keras_lt.report.systems import BASELINE, classifier_facts
from keras_lt.report.tables import as_number, best_classifier, display_name, percent
from keras_lt.stages import Classifier
from keras_lt.work_folder import file_name


def draw_plots(
    results: Mapping,
    details: RunDetails,
    *,
    intervals: Mapping[str, Ends],
    published: Mapping[str, Mapping[str, float]],
) -> list[Plot]:
    """Every plot that `details` has the arrays for, in the order of the page.

    Args:
      intervals: classifier -> score -> ends.
      published: classifier -> score -> published fraction.
    """
    ranks = Ranks.sort(details.groups, class_counts=details.class_counts, class_names=details.class_names)
    styles = styles_for(results["classifiers"])
    unknown = {*details.per_class, *details.curves, *details.weight_norms, *details.scores} - styles.keys()
    if unknown:
        raise ValueError(f"details may only name classifiers of results. Received: {sorted(unknown)}")
    with matplotlib.rc_context(RC):
        plots = [
            draw_class_counts(ranks),
            draw_group_accuracy(results["classifiers"], styles=styles, intervals=intervals, published=published),
        ]
        if details.per_class:
            plots.append(draw_class_accuracy(ranks, details.per_class, styles=styles))
            plots.append(draw_test_distributions(details.per_class, details.class_counts, styles=styles))
        split = details.flags.get("tau_split", "val")
        for name, curve in details.curves.items():
            chosen = results["classifiers"][name].get("chosen") or {}
            plots.append(draw_tau_curve(name, curve, style=styles[name], chosen_tau=chosen.get("tau"), split=split))
        if details.weight_norms:
            plots.append(draw_weight_norms(ranks, details.weight_norms, styles=styles))
        shown = dict.fromkeys(
            n for n in (BASELINE, details.exported or best_classifier(results)) if n in details.scores
        )
        if shown:
            plots.append(draw_reliability({n: details.scores[n].reliability for n in shown}, styles=styles))
    return plots


def draw_class_counts(ranks: Ranks) -> Plot:
    """Training examples of every class on a log scale."""
    figure, ax = new_axes("training examples")
    ranks.draw_axis(ax)
    floor = 0.7  # below one, so that a class with a single one is seen
    if ranks.named:
        bars = ax.bar(np.arange(len(ranks)) + 1, ranks.counts, width=0.7, color=BARS)
        ax.bar_label(bars, [f"{count:,}" for count in ranks.counts], size=7, padding=1)
    else:
        heights = np.maximum(ranks.counts[ranks.shown], floor)
        ax.fill_between(ranks.shown + 1, floor, heights, color=BARS, linewidth=0)
    ax.set_yscale("log")
    ax.set_ylim(floor, 2 * ranks.counts[0])
    ax.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda count, _: f"{count:,.0f}"))
    return render(
        figure,
        name="class_counts",
        title="Training examples per class",
        caption="Log scale. Shades tell many-, medium- and few-shot classes apart, here and below.",
        alt=f"{len(ranks):,} classes sorted by training examples, from {ranks.counts[0]:,} down to "
        f"{ranks.counts[-1]:,}.",
    )


def draw_class_accuracy(ranks: Ranks, per_class: Mapping[str, np.ndarray], *, styles: Mapping[str, Style]) -> Plot:
    """Test accuracy of every class, most frequent class first, one line per classifier."""
    figure, ax = new_axes("test accuracy in %")
    ranks.draw_axis(ax)
    percents = {name: 100 * np.asarray(fractions) for name, fractions in per_class.items()}
    ranks.draw_lines(ax, values=percents, styles=styles)
    ax.set_ylim(bottom=0)
    add_legend(figure, ax)
    smoothed = "" if ranks.named else f" Lines are means over {ranks.window} classes of neighboring rank."
    return render(
        figure,
        name="class_accuracy",
        title="Accuracy against training examples",
        caption="Balancing trades accuracy on the left for accuracy on the right." + smoothed,
        alt=f"Test accuracy per class against rank for {_listed(per_class)}; its means over many-, "
        "medium- and few-shot classes are in the table.",
    )


def draw_tau_curve(
    name: str, curve: Sequence[Mapping], *, style: Style, chosen_tau: float | None, split: str = "val"
) -> Plot:
    """Accuracy over tau for the groups and all, on the split by which one was chosen, with the chosen tau."""
    figure, ax = new_axes(f"accuracy on {split} in %")
    curve = sorted(curve, key=lambda point: point["tau"])  # a search does not go up in order
    taus = [point["tau"] for point in curve]
    alt = f"Accuracy on {split} for τ from {taus[0]:g} to {taus[-1]:g}"
    for group, (marker, dashes) in GROUP_LINES.items():
        percents = [100 * as_number(point[group]) for point in curve]
        if np.isnan(percents).all():
            continue
        whole = group == "all"
        color, width = (style.color, 2.4) if whole else (INK, 1.3)
        ax.plot(taus, percents, color=color, linewidth=width, linestyle=dashes, marker=marker, label=group)
        alt += f"; {group} goes from {percent(curve[0][group])} to {percent(curve[-1][group])}%"
    ax.set_ylim(bottom=0)
    ax.set_xlabel("τ")
    if chosen_tau is not None:
        mark(ax, chosen_tau, f"chosen τ = {chosen_tau:.4g}", color=style.color)
        alt += f"; chosen is {chosen_tau:.4g}"
    add_legend(figure, ax)
    has_usual = classifier_facts(name).preferred
    unless = ", or the usual one where that is within a standard error of it" if has_usual else ""
    return render(
        figure,
        name=f"tau_curve_{file_name(name)}",
        title=f"{display_name(name)}: accuracy over τ",
        caption=f"A larger τ moves accuracy from frequent to rare classes; the best τ on {split} is kept{unless}.",
        alt=alt + ".",
    )


def draw_weight_norms(ranks: Ranks, weight_norms: Mapping[str, np.ndarray], *, styles: Mapping[str, Style]) -> Plot:
    """Norm of every class's weights, each classifier over its own mean, as in figure 2 of the paper."""
    figure, ax = new_axes("weight norm relative to its mean")
    ranks.draw_axis(ax)
    relative = {name: np.asarray(norms) / np.mean(norms) for name, norms in weight_norms.items()}
    ranks.draw_lines(ax, values=relative, styles=styles, raw=True)
    add_legend(figure, ax)
    shade = "" if ranks.named else " Faint: single classes; strong: smoothed over rank."
    return render(
        figure,
        name="weight_norms",
        title="Weight norms of the linear classifiers",
        caption="A norm that falls with the training examples favors the frequent classes. Each classifier is "
        "divided by its mean, which changes no prediction." + shade,
        alt=f"Norm of the classifier weights per class against rank for {_listed(weight_norms)}.",
    )


@checked
def plot_class_counts(data: LongTailed) -> Plot:
    """The long tail: training examples of every class, most first, on a log scale.

    >>> plot = keras_lt.plot_class_counts(data)
    >>> plot.alt
    '10 classes sorted by training examples, from 1,000 down to 10.'
    """
    ranks = Ranks.sort(data.groups, class_counts=data.class_counts, class_names=data.class_names)
    with matplotlib.rc_context(RC):
        return draw_class_counts(ranks)


@checked
def plot_tau_curve(classifier: Classifier) -> Plot:
    """What every tau does to many-, medium- and few-shot classes of val, with the one that was chosen.

    >>> plot = keras_lt.plot_tau_curve(classifier)

    Args:
      classifier: of `learn_classifier("tau_norm", ...)` or "tau_search".
    Raises:
      ValueError: it did not choose a tau.
    """
    if "tau" not in classifier.chosen:
        raise ValueError(f"The classifier must have chosen a tau, as tau_norm does. Received: {classifier.chosen}")
    name = "tau_norm"
    with matplotlib.rc_context(RC):
        return draw_tau_curve(
            name, classifier.candidates, style=styles_for([name])[name], chosen_tau=classifier.chosen["tau"]
        )


def _listed(classifiers: Mapping[str, np.ndarray]) -> str:
    return ", ".join(map(display_name, classifiers))
