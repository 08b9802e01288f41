"""What several tests do with a representation, from its folder to a SavedModel."""

import keras_lt


def saved_and_exported(learned, data, recipe, folder):
    """Saves and loads a representation, and exports tau-norm on it: (loaded, features by split, classifier, path)."""
    learned.save(folder / "run")
    loaded = keras_lt.Representation.load(folder / "run")
    features = {
        split: keras_lt.extract_features(loaded.backbone, data.splits[split], loaded.preprocessing)
        for split in ("train", "val", "test")
    }
    classifier = keras_lt.learn_classifier("tau_norm", loaded, data, features=features, recipe=recipe)
    path = keras_lt.export_saved_model(
        classifier.backbone,
        folder / "export",
        classifier=classifier.model,
        class_names=data.class_names,
        **loaded.preprocessing.evaluation_settings(),
    )
    return loaded, features, classifier, path
