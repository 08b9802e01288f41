"""The model card: what a SavedModel was made of, how good it is, and what it is not for."""

from collections.abc import Mapping

import jinja2
import keras
import tensorflow as tf

from keras_lt.datasets import Examples, FeatureVectors, LongTailed
from keras_lt.datasets.data_record import DataRecord
from keras_lt.preprocessing import NoPreprocessing, Preprocessing

SCORES = ("many", "medium", "few", "all", "class_mean")


def render_model_card(
    name: str,
    data: LongTailed | DataRecord,
    *,
    scores: Mapping,
    preprocessing: Preprocessing | NoPreprocessing,
    feature_width: int,
    flags: Mapping[str, str],
    prior: str,
    temperature: float,
    on_bad_request: str,
) -> str:
    """The card in Markdown.

    Args:
      name: of the classifier.
      data: what it was learned on.
      scores: what scores.json holds of it: val, test and chosen.
      preprocessing: the network's.
      feature_width: D.
      flags: those that decide the run's numbers.
      prior: the `--target_prior`, or empty.
      temperature: what logits are divided by, before that prior is added; 1 is nothing.
      on_bad_request: as in `export_saved_model`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_lt"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["short"] = _short
    return environment.get_template("model_card.md").render(
        name=name,
        data=data,
        counts=data.class_counts,
        groups=data.groups.sizes,
        many_above=data.groups.many_above,
        few_below=data.groups.few_below,
        columns=SCORES,
        scores={split: [_percent(scores[split][column]) for column in SCORES] for split in ("test", "val")},
        chosen=", ".join(f"{choice} {_short(value)}" for choice, value in scores["chosen"].items()),
        chosen_on=flags["tau_split"] if "tau" in scores["chosen"] else "val",
        called=(Examples if preprocessing.image_size else FeatureVectors).called,
        preprocessing=preprocessing,
        feature_width=feature_width,
        flags=flags,
        prior=prior,
        temperature=temperature,
        on_bad_request=on_bad_request,
        libraries=f"TensorFlow {tf.__version__} and Keras {keras.__version__}",
    )


def _percent(fraction: float | None) -> str:
    """0.379 -> "37.9"; "-" for a group without a class."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _short(value: float | str) -> str:
    """0.30000000000000004 -> "0.3"; words as they are."""
    return value if isinstance(value, str) else f"{value:.6g}"
