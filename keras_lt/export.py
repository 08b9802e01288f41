"""Writes a SavedModel of one classifier of a finished run.

    python -m keras_lt.export --workdir=runs/fashion_lt --export_classifier=lws

Every call writes a new version beside the earlier ones, which a model server picks up by itself.
"""

import functools

from keras_lt import config
from keras_lt.command import launch, part, plain_errors, quietly

with quietly(__name__, functools.partial(config.answer, config.define_flags)):
    from keras_lt.run import Run


def choose(run: Run, name: str) -> str:
    """The classifier to export: `name`, or the best on val where that is empty.

    Raises:
      ValueError: it is not there, or nothing says which is best.
    """
    if not name and run.is_finished:
        return run.results["best"]
    if name:
        run.check_finished([name])
        return name
    raise ValueError(
        f"{run.folder} holds no finished run: give its training command again, or name a finished classifier by "
        f"--export_classifier; it has {', '.join(run.classifiers) or 'none'}"
    )


def main():
    """Runs the command."""
    with plain_errors():
        given = config.of_a_run()
        run = Run(**given)
        name = choose(run, run.config.export_classifier and run.exported_classifier)
        if "classifiers" in given and name not in run.config.systems:
            raise ValueError(
                f"--export_classifier says what is exported, and not --classifiers. Received: {name} to be exported, "
                f"--classifiers={','.join(given['classifiers'])}"
            )
    with part(f"SavedModel of {name}"), plain_errors():
        print(run.export(name))


if __name__ == "__main__":
    launch(main)
