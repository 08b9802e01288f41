"""The flags that single commands have beside those of a run."""

import dataclasses
import sys
from collections.abc import Mapping

from absl import flags

from keras_lt.config.flags import define_flags, from_flags, of_a_run
from keras_lt.config.run_config import DATA, RunConfig


def _define_own(flag_values: flags.FlagValues, *names: str):
    """Makes --help list flags as the command's own."""
    for name in names:
        flag_values.register_key_flag_for_module(sys.argv[0], flag_values[name])


def define_describe_flags(flag_values: flags.FlagValues = flags.FLAGS):
    """Defines the flags of a run, and those of `keras_lt.describe` alone."""
    define_flags(flag_values)
    text = "Folder to write to; empty is describe in the work folder."
    flags.DEFINE_string("output_dir", "", text, flag_values=flag_values)
    _define_own(flag_values, "output_dir")


def output_dir(flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """The parsed flag of `keras_lt.describe`."""
    return flag_values["output_dir"].value


def define_repeat_flags(flag_values: flags.FlagValues = flags.FLAGS):
    """Defines the flags of a run, and the seeds of those commands that do several."""
    define_flags(flag_values)
    text = "Seeds, comma-separated: one run each, in place of --seed."
    flags.DEFINE_list("seeds", ["0", "1", "2"], text, flag_values=flag_values)
    _define_own(flag_values, "seeds")


def seeds(flag_values: flags.FlagValues = flags.FLAGS) -> list[int]:
    """The parsed seeds.

    Raises:
      ValueError: none, one twice, or what is no whole number.
    """
    words = flag_values["seeds"].value
    numbers = [int(word) for word in words if word.isdecimal()]
    if not words or len(numbers) < len(words) or len(set(numbers)) < len(numbers):
        raise ValueError(f"--seeds must be whole numbers, comma-separated, each once. Received: {','.join(words)!r}")
    return numbers


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What `keras_lt.evaluate` is asked for.

    Attributes:
      model, images, split, predictions, test_distribution, aggregate: the command's own flags.
      on_bad_image: what a bad one of `images` does.
      classifiers: those of the run, where some are named.
      target_prior: the class distribution that logits are moved to, or "em"; empty leaves them.
      calibrate: whether logits are divided by the temperature of val.
      run: what opens the run in --workdir, as arguments of `Run`; None where there is none beside a model.
      data: says the data set; None where the run does, or where nothing does beside a model and images.
    """

    model: str
    classifiers: tuple[str, ...]
    images: str
    on_bad_image: str
    split: str
    predictions: str
    test_distribution: str
    target_prior: str
    calibrate: bool
    aggregate: bool
    run: Mapping[str, object] | None
    data: RunConfig | None


def define_evaluate_flags(flag_values: flags.FlagValues = flags.FLAGS):
    """Defines the flags of a run, and those of `keras_lt.evaluate` alone."""
    define_flags(flag_values)
    texts = {
        "model": "A .keras file or a SavedModel to score, in place of a run.",
        "images": "Folder of images to score on: a folder per class, or no folder.",
        "predictions": "CSV file to write every prediction to.",
        "test_distribution": "Class distribution to give the accuracy for as well: uniform, train, forward:ratio=25 "
        "(long-tailed as in training), backward:ratio=25, or a file of one probability per class. The expectation "
        "over test sets of that distribution, which no drawing of images makes noisy.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, "", text, flag_values=flag_values)
    flags.DEFINE_enum("split", "test", ["test", "val", "train"], "Split to score on.", flag_values=flag_values)
    text = (
        "Also score a run of --method=sade with its experts weighed for these images: so that two augmented views of "
        "each are predicted alike; their labels play no part."
    )
    flags.DEFINE_bool("aggregate", False, text, flag_values=flag_values)
    _define_own(flag_values, *texts, "split", "aggregate")


def evaluate_options(flag_values: flags.FlagValues = flags.FLAGS) -> EvaluateOptions:
    """The parsed flags of `keras_lt.evaluate`.

    Raises:
      ValueError: a model without a data set, a run or images; one whose logits are to be moved; or a split of images.
    """
    names = ("model", "images", "on_bad_image", "split", "predictions", "test_distribution", "aggregate")
    own = {name: flag_values[name].value for name in names}
    of_others = DATA if own["images"] or flag_values["dataset"].present else ""
    run = of_a_run(flag_values, but=of_others) if flag_values["workdir"].present or not own["model"] else None
    data = from_flags(flag_values) if flag_values["dataset"].present else None
    if run is None and data is None and not own["images"]:
        raise ValueError("--model is scored on --dataset, on the data set of --workdir, or on --images. Received: none")
    if own["images"] and flag_values["split"].present:
        raise ValueError(
            "--split is of a data set, and --images are scored in its place. "
            f"Received: --split={own['split']}, --images={own['images']}"
        )
    # As given here: the table of a run is of its logits as learned, whatever it was exported for.
    moved = {
        name: flag_values[name].value if flag_values[name].present else "" for name in ("target_prior", "calibrate")
    }
    if own["model"] and any(moved.values()):
        raise ValueError(
            "--target_prior and --calibrate belong to the classifiers of a run, of which val and the training's class "
            f"distribution are known; a model is exported with them. Received: --model={own['model']}"
        )
    if own["aggregate"] and (own["model"] or any(moved.values())):
        raise ValueError(
            "--aggregate finds out by itself how the classes of a run's images are distributed: no --model, "
            f"--target_prior or --calibrate. Received: --aggregate, --model={own['model']}, "
            f"{', '.join(f'--{name}={value}' for name, value in moved.items())}"
        )
    moved["calibrate"] = moved["calibrate"] == "temperature"
    chosen = from_flags(flag_values).classifiers if flag_values["classifiers"].present else ()
    return EvaluateOptions(**own, **moved, classifiers=chosen, run=run, data=data)
