"""Every pair of flags: refused in one clear line before any work, or both stages build and take a step.

All pairs go through `check`. Those that pass are packed into as few runs as will hold them, which are then trained.
"""

import dataclasses
import functools
import itertools
import pathlib

import numpy as np
import pytest

from keras_lt import datasets, train
from keras_lt.config import RunConfig
from keras_lt.config.checks import check_with_data
from keras_lt.distribution import make_strategy
from keras_lt.run import Run
from tests.conftest import save_squares
from tests.miniatures import LAYOUTS

# Of every flag a value, or several, that is not its default; the test's own defaults are `tiny_run`'s.
OTHER_VALUES = {
    "imbalance_ratio": [2.0],
    "profile": ["step"],
    "allow_modified_lists": [True],
    "shot_cuts": ["oltr"],
    "many_above": [50],
    "few_below": [10],
    "on_bad_image": ["skip"],
    "seed": [3],
    "backbone": ["resnet8"],
    "pretrained": ["imagenet"],
    "image_size": [12],
    "train_parts": ["last_block", "classifier"],
    "backbone_lr_multiplier": [0.5],
    "augmentation": ["crop_flip"],
    "randaugment": [1],
    "randaugment_magnitude": [3.0],
    "random_erasing": [0.5],
    "mixup": [0.3],
    "cutmix": [0.3],
    "method": ["bbn", "oltr", "fslwf", "balpoe:experts=2:taus=0+2", "sade", "ride:experts=2"],
    "head": ["cosine:scale=20", "dense", "class_mean_cosine"],
    "head_start": ["text"],
    "stage_one": ["features"],
    "base_batch_size": [8],
    "epochs": [1],
    "steps_per_epoch": [2],
    "batch_size": [8],
    "accumulate_steps": [2],
    "optimizer": ["adamw"],
    "learning_rate": [0.01],
    "schedule": ["cosine_per_step", "multistep"],
    "warmup_epochs": [1],
    "decay_epochs": [(1,)],
    "decay_factor": [0.5],
    "weight_decay": [0.0],
    "momentum": [0.5],
    "nesterov": [True],
    "clip_norm": [1.0],
    "ema_momentum": [0.5],
    "kept_epoch": ["last"],
    "sampler": ["square_root", "power:q=0.3", "progressive"],
    "engine": ["weighted", "stratified", "instance"],
    "resampling": ["undersampling", "smote"],
    "loss": ["focal:gamma=1", "logit_adjustment:tau=0.5", "ldam:max_margin=0.3", "sigmoid", "los", "lade"],
    "feature_loss": ["range:margin=1"],
    "feature_loss_weight": [0.1],
    "class_weights": ["inverse_frequency", "effective_number:beta=0.9"],
    "class_weights_from": [1],
    "steps_per_execution": [2],
    "jit_compile": ["false"],
    "classifiers": [
        ("ncm",),
        ("joint", "crt_all"),
        ("cosine:scale=30", "crt:epochs=1", "tau_learned"),
        ("lift", "disalign:rho=1"),
    ],
    "stage_two": ["images"],
    "tau_split": ["test"],
    "i_know_this_is_test": [True],
    "feature_views": [2],
    "feature_dtype": ["float16"],
    "batch_norm": ["update"],
    "classifier_epochs": [1],
    "classifier_learning_rate": [0.02],
    "classifier_schedule": ["multistep"],
    "classifier_warmup_epochs": [1],
    "classifier_decay_epochs": [(1,)],
    "classifier_sampler": ["square_root"],
    "classifier_resampling": ["oversampling", "smote:neighbors=3"],
    "classifier_loss": ["balanced_softmax", "ldam:scale=30"],
    "classifier_class_weights": ["power:rho=0.5"],
    "precision": ["mixed_bfloat16"],
    "strategy": ["none"],
    "devices": [("CPU:0",)],
    "export_classifier": ["ncm"],
    "target_prior": ["uniform"],
    "calibrate": ["temperature"],
    "on_bad_request": ["nan"],
    "export_onnx": [True],
}
# Flags that mean something only beside others, which they then bring along.
WITH_OTHERS = {
    "imbalance_ratio": {"dataset": "cifar10_lt"},
    "profile": {"dataset": "cifar10_lt"},
    "allow_modified_lists": {"dataset": "places_lt"},
    "pretrained": {"backbone": "efficientnet_lite0", "image_size": 32},
    "decay_factor": {"schedule": "multistep", "decay_epochs": (1,)},
    "devices": {"strategy": "mirrored"},
}
NOT_OF_A_STEP = {"dataset", "data_dir", "workdir", "overwrite"}  # which data and which folder
CHOICES = [(name, value) for name, values in OTHER_VALUES.items() for value in values]


def test_every_flag_takes_part():
    assert {field.name for field in dataclasses.fields(RunConfig)} == OTHER_VALUES.keys() | NOT_OF_A_STEP


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory, tiny_backbone):
    """Flags -> a `RunConfig` of two short epochs in each stage on the squares, or None where it is refused."""
    folder, data_dirs = (
        tmp_path_factory.mktemp("pairs"),
        {"arrays": str(save_squares(tmp_path_factory.mktemp("squares")))},
    )
    for dataset in ("cifar10_lt", "places_lt"):
        data_dirs[dataset] = str(tmp_path_factory.mktemp(dataset))
        LAYOUTS[dataset](pathlib.Path(data_dirs[dataset]))

    def make(**changes):
        brought = {name: value for flag in changes for name, value in WITH_OTHERS.get(flag, {}).items()}
        changes = {"dataset": "arrays", **brought, **changes}
        base = {
            "data_dir": data_dirs[changes["dataset"]],
            "workdir": str(folder / "run"),
            "backbone": tiny_backbone,
            "epochs": 2,
            "batch_size": 16,
            "learning_rate": 0.05,
            "classifier_epochs": 2,
            "classifiers": ("joint", "ncm", "crt", "tau_norm", "lws"),
        }
        return RunConfig(**{**base, **changes})

    read = functools.cache(lambda *arguments, options: load(*arguments, **dict(options)))  # three thousand times
    load = datasets.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda *names, **options: read(*names, options=tuple(options.items())))
        yield make


def refusal(tiny_run, **changes):
    """Why flags are refused; empty where they are not."""
    try:
        config = tiny_run(**changes)
    except ValueError as error:
        return str(error)
    try:
        check_with_data(config, config.load_data(), make_strategy(config.strategy))
    except ValueError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def refusals(tiny_run):
    """Pair of choices -> why it is refused, or nothing."""
    return {
        (one, other): refusal(tiny_run, **dict((one, other)))
        for one, other in itertools.combinations(CHOICES, 2)
        if one[0] != other[0]
    }


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:loss=.*corrects for the class sizes already")
@pytest.mark.filterwarnings("ignore:The lists of places_lt are not those published")
def test_a_refusal_is_one_line_that_says_what_was_given(refusals):
    said = {reason for reason in refusals.values() if reason}
    assert all("Received: " in reason and "\n" not in reason for reason in said)
    accepted = [pair for pair, reason in refusals.items() if not reason]
    assert len(accepted) > len(refusals) / 2
    taken = {choice for pair in accepted for choice in pair}
    # What nothing takes here: texts without a tower that reads them, and LDAM, which asks for a head of stage two's.
    some = {("head_start", "text"), ("resampling", "smote"), ("method", "fslwf"), ("classifier_loss", "ldam:scale=30")}
    assert set(CHOICES) - taken == some


def packed(tiny_run, refusals):
    """Runs of many flags each that hold every accepted pair, greedily."""
    missing = {frozenset(pair) for pair, reason in refusals.items() if not reason}
    while missing:
        chosen = dict(min(map(sorted, missing), key=str))  # a set's own order differs from process to process
        for name, value in sorted(
            CHOICES, key=lambda choice: -sum(frozenset((choice, other)) in missing for other in chosen.items())
        ):
            if name not in chosen and not refusal(tiny_run, **chosen, **{name: value}):
                chosen[name] = value
        before = len(missing)
        missing -= {frozenset(pair) for pair in itertools.combinations(chosen.items(), 2)}
        assert len(missing) < before
        yield chosen


def take_steps(config, folder):
    """Both stages of a run, without its report and export."""
    run = Run.of(dataclasses.replace(config, workdir=str(folder)))
    strategy = make_strategy(config.strategy)
    train.stage_one(run, strategy)
    features = {split: run.features(split) for split in run.data.all_splits}
    for name in run.config.systems:
        train.stage_two(name, run, features, strategy)
        assert np.isfinite(run.outcome(name)["val"]["all"])


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param(2, marks=pytest.mark.exhaustive),
        pytest.param(None, marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
@pytest.mark.filterwarnings("ignore:loss=.*corrects for the class sizes already")
@pytest.mark.filterwarnings("ignore:The lists of places_lt are not those published")
def test_what_is_not_refused_builds_and_takes_a_step(tiny_run, refusals, tmp_path, runs):
    for number, chosen in enumerate(itertools.islice(packed(tiny_run, refusals), runs)):
        try:
            take_steps(tiny_run(**chosen), tmp_path / str(number))
        except Exception as error:
            raise AssertionError(f"failed with {chosen}") from error
