"""Tables and plots of classifiers whose names are long, as those with parameters are."""

import contextlib
import io

import numpy as np
import pytest
import rich.console

from keras_lt import report
from keras_lt.comparison import dots
from keras_lt.report import figures, plots, score_plots, style, systems
from tests.test_report import RESULTS, terminal_text

LONG = (
    "crt:loss=balanced_binary_cross_entropy:sampler=instance_balanced",
    "logit_adjusted:prior=effective",
    "max_norm",
)


def test_names_are_folded_and_never_numbers():
    results = RESULTS | {"classifiers": dict(zip(LONG, RESULTS["classifiers"].values(), strict=True))}
    narrow = terminal_text(results, width=80)
    assert {"*45.7", "*31.8", "cross-entropy,", "effective", "τ", "0.7", "min"} <= set(narrow.split())
    assert "…" not in narrow
    table = report.terminal_table(results)
    for width, terminal in ((30, True), (30, False)):  # fewer than the numbers take; a file has no width
        console = rich.console.Console(width=width, force_terminal=terminal, file=io.StringIO())
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
            patch.setattr(rich, "get_console", lambda console=console: console)
            report.show(table)
        assert {"*45.7", "*31.8", "37.6"} <= set(said.getvalue().split())
        assert ("balanced binary cross-entropy" in said.getvalue()) is not terminal


def test_every_classifier_is_one_dot_beside_its_name(monkeypatch):
    """Markers that are no letters are markers, too; names that would push the panels out stand in several lines."""
    monkeypatch.setattr(score_plots, "render", lambda figure, **_: figure)
    classifiers = {name: {"test": {"few": 0.2 + 0.3 * y, "all": 0.5}} for y, name in enumerate(LONG)}
    styles = style.styles_for(classifiers)
    figure = score_plots.draw_group_accuracy(classifiers, styles=styles, intervals={}, published={})
    few, both = figure.axes
    drawn = [line.get_xydata().tolist() for line in few.lines]
    np.testing.assert_allclose(drawn, [[[20, 0]], [[50, 1]], [[80, 2]]])
    assert [line.get_marker() for line in few.lines] == [styles[name].marker for name in LONG]
    figure.draw_without_rendering()  # warns, which is an error here, where the panels have no room
    assert few.get_position().width > 0.2
    assert both.get_position().x1 <= 1


def test_a_legend_lies_within_its_figure():
    figure, ax = figures.new_axes("accuracy")
    for name in (*LONG, *RESULTS["classifiers"], "ncm", "lift"):
        ax.plot([0, 1], label=systems.display_name(name))
    figures.add_legend(figure, ax)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent().transformed(figure.transFigure.inverted())
    assert 0 <= box.x0 < box.x1 <= 1
    assert ax.get_position().height * figure.get_figheight() > 0.7 * figures.SIZE[1]


def test_a_plot_of_a_classifier_with_parameters_has_a_name_for_files():
    curve = [{"tau": tau, "many": 0.5, "medium": 0.4, "few": 0.3, "all": 0.4} for tau in (0.0, 1.0)]
    name = "logit_adjusted:prior=effective"
    plot = plots.draw_tau_curve(name, curve, style=style.styles_for([name])[name], chosen_tau=1.0)
    assert plot.name == "tau_curve_logit_adjusted-prior=effective"


def test_runs_are_told_apart_however_many_and_however_long_names_are():
    accuracies = {name: {"many": [0.5], "medium": [0.4], "few": [0.3], "all": [0.4]} for name in LONG}
    figure = dots.draw_dots({f"sampler=power:q=0.{number}, learning_rate=0.1": accuracies for number in range(20)})
    figure.draw_without_rendering()  # warns, which is an error here, where the panels have no room
    assert all(ax.get_position().width > 0.1 for ax in figure.axes)
    looks = [(line.get_marker(), line.get_color()) for line in (drawn.lines[0] for drawn in figure.axes[0].containers)]
    assert len(set(looks)) == 20
