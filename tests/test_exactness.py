"""The same numbers, however a batch is divided: over two devices or processes, and into four and sixteen micro-batches.

One program trains every option whole and divided, and prints how far apart the weights end, relative to the largest of
them. Its backbone has no batch norm, whose statistics are of a micro-batch; two devices share them, so there the
tests' tiny backbone is an option of its own.
"""

import numpy as np
import pytest

from keras_lt.classifiers import CLASSIFIERS
from keras_lt.losses import LOSSES
from tests.programs import TWO_CPUS, lines_of, run_on_jax, two_hosts

TRAINING = """
import dataclasses
import sys
import keras
import numpy as np
from keras_lt import Recipe, backbones, learn_classifier, learn_representation
from keras_lt.datasets import LongTailed, Split
from keras_lt.distribution import make_strategy
from keras_lt.features import extract_features
from keras_lt.methods import method_entry
from tests.tiny_backbone import TINY

def plain(image_size=8):
    images = x = keras.Input((image_size, image_size, 3))
    for name in ("stem", "layer1"):
        inputs = keras.Input(x.shape[1:])
        convolved = keras.layers.Conv2D(4, 3, strides=2, activation="relu", padding="same")(inputs)
        x = keras.Model(inputs, convolved, name=name)(x)
    return backbones.pooled(images, x, name="plain")

backbones.BACKBONES["tiny"] = TINY
backbones.BACKBONES["plain"] = dataclasses.replace(TINY, function=plain, label="plain")

def tokens(image_size=8):
    from tests import tiny_presets  # loads keras_hub
    return tiny_presets.vit(image_shape=(image_size, image_size, 3), patch_size=4, num_layers=2)

backbones.BACKBONES["tokens"] = backbones.BackboneEntry(tokens, label="tokens", pooling="first", takes_adapters=True)
rng = np.random.default_rng(0)

def split(*counts):
    labels = rng.permutation(np.repeat(np.arange(3), counts))
    return Split((60 * labels[:, None, None] + rng.integers(0, 130, (len(labels), 8, 8))).astype(np.uint8), labels)

data = LongTailed(
    "squares", split(130, 110, 16), split(8, 8, 8), split(8, 8, 8), class_names="abc", augmentation="none",
    crop_fraction=1.0, mean=(0.4,) * 3, std=(0.2,) * 3,
)
BASE = Recipe(epochs=2, steps_per_epoch=2, batch_size=32, learning_rate=0.05, weight_decay=1e-3)

def weights_of(options, strategy, passes):
    options = dict(options)
    of_stage_one = {"backbone": options.pop("backbone", "plain"), "strategy": strategy}
    for argument in ("mixup", "cutmix", "train_parts", "backbone_lr_multiplier", "head", "precision"):
        if argument in options:
            of_stage_one[argument] = options.pop(argument)
    method = method_entry(options.pop("method", "decoupling"))()
    classifier = options.pop("classifier", "")
    of_stage_two = {key: options.pop(key) for key in ("stage_two", "batch_norm") if key in options}
    recipe = dataclasses.replace(BASE, accumulate_steps=passes, **options)
    if not classifier and method.name in ("decoupling", "bbn", "balpoe", "sade", "ride"):
        return learn_representation(data, recipe=recipe, hooks=method, **of_stage_one).model.get_weights()
    first = learn_representation(
        data, recipe=BASE, hooks=method, **of_stage_one | {"strategy": make_strategy("none")}
    )
    if not classifier:
        features = {s: extract_features(first.backbone, data.splits[s], first.preprocessing) for s in ("train", "val")}
        learned = method.classifier(
            first, data, features=features, recipe=recipe, seed=0, strategy=strategy, folder=None
        )
    else:
        learned = learn_classifier(classifier, first, data, recipe=recipe, strategy=strategy, **of_stage_two)
    return learned.model.get_weights() + learned.backbone.get_weights()
"""
COMPARISON = """
TWO = make_strategy("mirrored", ["CPU:0", "CPU:1"])  # a second one would take the collective keys of the first

def compare(options):
    name = ",".join(f"{key}={value}" for key, value in options.items()) or "plain"
    ways = {"two": (TWO, 1)}
    ways |= {str(passes): (make_strategy("none"), passes) for passes in (4, 16)}
    whole = weights_of(options, make_strategy("none"), 1)
    scale = max(np.abs(array).max() for array in whole)
    for way in sys.argv[1].split(","):
        try:
            divided = weights_of(options, *ways[way])
            apart = max(np.abs(a - b).max() for a, b in zip(whole, divided, strict=True)) / scale
        except ValueError as error:
            apart = f"refused: {error}"
        print("COMPARED", name, way, apart, sep="|", flush=True)

for options in eval(sys.argv[2]):
    compare(options)
"""
DEVICES, PASSES = ("two",), ("4", "16")
EVERYWHERE = (*DEVICES, *PASSES)
# Options -> in which ways they give the same weights; in the others they are refused. Of micro-batches batch norm has
# each one's own statistics: what trains it is compared over devices alone.
QUICK = [
    ({"class_weights": "inverse_frequency", "clip_norm": 0.05, "schedule": "cosine_per_step"}, EVERYWHERE),
    ({"backbone": "tiny", "feature_loss": "range", "ema_momentum": 0.5}, DEVICES),
    ({"classifier": "tau_learned", "learning_rate": 2.0}, EVERYWHERE),
    ({"backbone": "tokens", "train_parts": "lora:rank=2", "head": "class_mean_cosine"}, EVERYWHERE),
    ({"backbone": "tokens", "train_parts": "adaptformer"}, EVERYWHERE),
]
# A head alone would hardly move in four steps, and what hardly moves hardly differs.
FAR = {"classifier": {"learning_rate": 1.0}, "last_block": {}, "all": {}}
LONG = [
    *(
        ({"loss": name, "class_weights": "effective_number:beta=0.9"}, DEVICES if entry.compares else EVERYWHERE)
        for name, entry in LOSSES.items()
    ),
    ({"class_weights": "power:rho=0.5", "class_weights_from": 1, "loss": "ldam"}, EVERYWHERE),
    ({"optimizer": "adamw", "clip_norm": 0.05, "warmup_epochs": 2}, EVERYWHERE),
    ({"nesterov": True, "sampler": "progressive", "backbone_lr_multiplier": 0.1}, EVERYWHERE),
    ({"sampler": "square_root", "engine": "stratified"}, EVERYWHERE),
    ({"resampling": "undersampling"}, EVERYWHERE),
    ({"mixup": 0.5}, EVERYWHERE),
    ({"cutmix": 0.5, "train_parts": "last_block"}, EVERYWHERE),
    ({"backbone": "tiny"}, DEVICES, DEVICES),
    ({"backbone": "tiny", "precision": "mixed_bfloat16", "learning_rate": 0.0}, DEVICES, DEVICES),
    ({"feature_loss": "lifted", "mixup": 0.5}, DEVICES),
    *(
        ({"classifier": name, "class_weights": "inverse_frequency", **FAR[entry.train_parts]}, EVERYWHERE)
        for name, entry in CLASSIFIERS.items()
        if entry.trained
    ),
    ({"classifier": "lws", "stage_two": "images", **FAR["classifier"]}, EVERYWHERE),
    ({"classifier": "max_norm", "ema_momentum": 0.5, **FAR["classifier"]}, DEVICES),
    ({"classifier": "crt_all", "backbone": "tiny"}, DEVICES, DEVICES),
    # At the tests' rate; docs/exactness.md says where halves part further.
    ({"precision": "mixed_float16"}, EVERYWHERE),
    *(
        ({"classifier": name, "precision": "mixed_float16"}, EVERYWHERE)
        for name in ("crt_last_block", "crt_all", "crt_all_tenth", "fine_tune")
    ),
    ({"method": "bbn"}, EVERYWHERE),
    ({"method": "oltr"}, DEVICES),
    ({"method": "oltr", "backbone": "tiny"}, DEVICES),
    ({"method": "fslwf"}, DEVICES),
    ({"method": "balpoe", "mixup": 0.5}, EVERYWHERE),
    ({"method": "sade:cosine=false"}, EVERYWHERE),
    ({"method": "ride", "class_weights": "effective_number:beta=0.9", "class_weights_from": 1}, EVERYWHERE),
    ({"method": "ride", "backbone": "tiny"}, DEVICES, DEVICES),
]


def compared(cases):
    """Every option and way -> how far apart the weights end, or why it is refused."""
    arguments = ["two,4,16", repr([options for options, *_ in cases])]
    lines = lines_of(f"import sys\nsys.argv[1:] = {arguments}\n", TWO_CPUS, TRAINING, COMPARISON)
    rows = (line.split("|", 3) for line in lines if line.startswith("COMPARED|"))
    return {(name, way): apart for _, name, way, apart in rows}


def check(cases):
    """All that differ or are not refused are named at once."""
    found, wrong = compared(cases), {}
    for options, same, *tried in cases:
        name = ",".join(f"{key}={value}" for key, value in options.items())
        for way in tried[0] if tried else EVERYWHERE:
            apart = found[name, way]
            refused = apart.startswith("refused")
            if refused != (way not in same) or not (refused or float(apart) < 1e-4):
                wrong[name, way] = apart
    assert not wrong


@pytest.mark.exhaustive
def test_the_weights_of_a_batch_are_those_of_its_parts():
    check(QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_option_that_takes_part_in_a_step(part):
    check(LONG[part::4])


WEIGHTS = """
strategy, cases, path = make_strategy(sys.argv[1]), eval(sys.argv[2]), sys.argv[3]
for number, options in enumerate(cases):
    np.savez(f"{path}-{number}.npz", *weights_of(options, strategy, 1))
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_two_processes_of_jax_give_the_weights_of_one(tmp_path, part):
    """Of every option that is not refused on several hosts; the second process ends with the weights of the first."""
    one_host = ("feature_loss", "ema_momentum")
    cases = [options for options, *_ in (*QUICK, *LONG) if not any(name in options for name in one_host)]
    cases = [options for options in cases if options.get("method") != "oltr"][part::3]
    jobs = [("none", "one", {}), *(("multi_host", str(n), hosts) for n, hosts in enumerate(two_hosts()))]
    arguments = (([strategy, repr(cases), tmp_path / name], hosts) for strategy, name, hosts in jobs)
    run_on_jax(TRAINING + WEIGHTS, *arguments, timeout=900)
    for number, options in enumerate(cases):
        one, *two = (list(np.load(tmp_path / f"{name}-{number}.npz").values()) for name in ("one", "0", "1"))
        scale = max(np.abs(array).max() for array in one)
        for weights in two:
            apart = max(np.abs(a - b).max() for a, b in zip(one, weights, strict=True)) / scale
            assert apart < 1e-4, options


OVERFLOW = """
import keras
from keras_lt.distribution import make_strategy
from keras_lt.compat import ScaledLoss
from keras_lt.optimization import CoupledSGD

two = make_strategy("mirrored", ["CPU:0", "CPU:1"])
with two.scope():
    weight = keras.Variable(1.0)
    optimizer = ScaledLoss(CoupledSGD(0.5, momentum=0.0), initial_scale=4.0)
    optimizer.build([weight])

@tf.function
def step(overflows):
    def one():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([tf.where(overflows & (number == 1), float("inf"), 1.0)], [weight])
    two.run(one)

for overflows in (True, False):
    step(tf.constant(overflows))
    print(float(keras.ops.convert_to_numpy(weight)), float(keras.ops.convert_to_numpy(optimizer.dynamic_scale)))
"""


def test_an_overflow_on_the_second_device_leaves_the_step_out():
    """Then 1 / 2 from each device, as the scale has been halved: the step is .5 * (.5 + .5)."""
    assert lines_of(TWO_CPUS, OVERFLOW)[-2:] == ["1.0 2.0", "0.5 2.0"]
