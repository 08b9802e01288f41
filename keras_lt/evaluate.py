"""Scores the classifiers of a finished run afresh, from the test images, and prints the table.

python -m keras_lt.evaluate --workdir=runs/fashion_lt
"""

from keras_lt.command import launch, part, plain_errors, quietly

with quietly():
    import rich

    from keras_lt import config
    from keras_lt.checkpoints import read_json
    from keras_lt.evaluation import evaluate
    from keras_lt.features import extract_features
    from keras_lt.report import terminal_table
    from keras_lt.stages import Representation, load_classifier


def main():
    """Runs the command."""
    with plain_errors():
        run_config = config.from_workdir()
        folder = run_config.folder
        data = run_config.open_data()
        results = read_json(folder / "results.json")
        representation = Representation.load(folder / "representation")
    features = {}  # by backbone: all classifiers share stage one's unless its batch norm was updated
    for name, row in results["classifiers"].items():
        with part(name):
            backbone, classifier = load_classifier(folder / "classifiers" / name, representation)
            if id(backbone) not in features:
                own = backbone is representation.backbone
                features[id(backbone)] = extract_features(
                    backbone,
                    data.test,
                    representation.preprocessing,
                    dtype=run_config.feature_dtype if own else "float32",
                )
            row["test"] = evaluate(classifier, features[id(backbone)], data.listed_counts).accuracies
    rich.print(terminal_table(results))


if __name__ == "__main__":
    config.define_flags()
    launch(main)
