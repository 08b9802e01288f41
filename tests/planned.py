"""A plan of two runs for the tests of tools.reproduce, and finished runs that nothing was trained for."""

from keras_lt.config import RunConfig
from keras_lt.files import write_json, write_text
from keras_lt.report.published import GROUPS
from tools.reproduction.plans import Plan, Row, Run

TINY = Plan(
    "Two classifiers, and one on the first one's representation",
    "places_lt",
    {"first": Run(), "second": Run({"classifier_sampler": "instance_balanced"}, representation="first")},
    (
        Row("cRT", "first", "crt", (42.0, 37.6, 24.9, 36.7)),
        Row("NCM", "first", "ncm", (40.4, None, 27.3, 36.4)),
        Row("cRT, unbalanced", "second", "crt"),
    ),
)


def small_run(arrays_dir):
    """What the runs of a plan begin with."""
    return RunConfig(
        dataset="arrays",
        data_dir=str(arrays_dir),
        backbone="tiny",
        epochs=2,
        batch_size=16,
        learning_rate=0.05,
        classifier_epochs=2,
    )


def finish(run, **accuracies):
    """Leaves a finished run's folder, as far as it is looked at: classifier -> accuracies on test."""
    run.save(run.folder / "flags.cfg")
    tests = {name: {"test": dict(zip(GROUPS, values, strict=True))} for name, values in accuracies.items()}
    content = {"stage_one": {"epochs": 2, "train_class_mean": 0.87654}, "classifiers": tests, "best": min(tests)}
    write_json(run.folder / "results.json", {"dataset": "squares", "advice": [], **content})
    write_text(run.folder / f"export/{min(tests)}/1/saved_model.pb", "")
