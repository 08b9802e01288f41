"""The classifier family: Keras layers from features [B, D] to logits [B, C].

`CLASSIFIERS` maps a name to an entry: a function from stage one's own classifier, its head, to the built layers that
may take its place, each with the choices that it stands for; and all else that is to be known of it. What follows is
the same for all: `adapt` those that have it, fit those with trainable weights, keep the first choice of those that
validate best.

Choices are constructor arguments, such as {"tau": 0.7}, in a list, or a search: a generator that yields lists of them
and is sent their scores. A layer that stands for several has `shared(features [B, D])`, what they have in common by
rows, the product with the kernel first; and `logits_by(**choice)`, the function from that to the logits [B, C] of one,
which is arithmetic alone and so takes NumPy's arrays as well.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

from keras_lt.classifiers import adjusted, alignment, bounded, cosine, dense, lws, ncm, tau_norm
from keras_lt.classifiers.adjusted import LogitAdjustment, adjust_logits
from keras_lt.classifiers.alignment import DisAlign, MarginCalibration
from keras_lt.classifiers.bounded import MaxNormDense, ScaledDense, max_norm_radius, project_max_norm
from keras_lt.classifiers.cosine import ClassMeanCosine, CosineDense, fresh_cosine
from keras_lt.classifiers.dense import dense_of, fold, fresh_dense
from keras_lt.classifiers.lws import LearnableWeightScaling
from keras_lt.classifiers.ncm import NearestClassMean
from keras_lt.classifiers.tau_norm import TauNormalizedDense, tau_normalize
from keras_lt.registry import NOT_NEGATIVE, Entry

__all__ = [
    "CLASSIFIERS",
    "HEADS",
    "ClassMeanCosine",
    "ClassifierEntry",
    "CosineDense",
    "DisAlign",
    "HeadEntry",
    "LearnableWeightScaling",
    "LogitAdjustment",
    "MarginCalibration",
    "MaxNormDense",
    "NearestClassMean",
    "ScaledDense",
    "TauNormalizedDense",
    "adjust_logits",
    "dense_of",
    "fold",
    "fresh_cosine",
    "fresh_dense",
    "max_norm_radius",
    "project_max_norm",
    "tau_normalize",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadEntry(Entry):
    """What stage one trains on the backbone: (width D, units C, *, seed, **parameters) -> built layer.

    One that has `adapt` begins by the features of the training images.

    Attributes:
      affine: whether its logits are an affine map of the features.
      class_start: whether it begins as directions of the classes, those that the recipe's head_start says.
    """

    affine: bool = False
    class_start: bool = False


HEADS: dict[str, HeadEntry] = {
    "dense": HeadEntry(fresh_dense, label="Dense", affine=True),
    "cosine": HeadEntry(
        lambda width, units, *, seed, scale=30.0: fresh_cosine(width, units, seed=seed, scale=scale),
        label="Cosine",
        ranges=cosine.RANGES,
    ),
    "class_mean_cosine": HeadEntry(
        cosine.fresh_class_means, label="Class-mean cosine", ranges=cosine.RANGES, class_start=True
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierEntry(Entry):
    """A classifier of stage two: (head, *, seed, **parameters) -> [(choices, layer), ...].

    Attributes:
      starts_from: what of stage one it needs: "head", its classifier; "affine", a classifier that is an affine map of
        the features; "" nothing but the features.
      gives: the head in `HEADS` whose logits its are like, so that a loss which needs that head can train it; its own
        parameters may stand in it, in braces.
      trained: whether stage two fits it.
      train_parts: what stage two trains: "classifier", or with it the backbone's "last_block", or "all" of it.
      rate: factor on the learning rate of all that is trained.
      recipe: fields of stage two's recipe -> what the classifier has in their place; its own parameters may stand
        there, in braces.
      preferred: (**parameters) -> the choice that is taken where no other is better on val by more than a standard
        error; None takes the best.
      prior: the class distribution that its logits take for granted: that of the training of "stage_one", or of
        "stage_two", or "uniform" where it is made to treat classes alike.
      tau_split: whether `--tau_split` says which split its choice is made on; else it is val.
      baseline: whether tables give the others' differences to it.
      rescales: whether its logits are those of stage one's classifier, with a scale or an offset per class.
      class_start: as in `HeadEntry`.
      distances: whether its logits are distances, of which a softmax is no estimate of probabilities.
      advised: whether reports advise it where Joint falls short: it learns from the features and chooses nothing.
    """

    starts_from: Literal["", "head", "affine"] = ""
    gives: str = "dense"
    trained: bool = True
    train_parts: Literal["classifier", "last_block", "all"] = "classifier"
    rate: float = 1.0
    recipe: Mapping[str, object] = dataclasses.field(default_factory=dict)
    preferred: Callable[..., Mapping[str, object]] | None = None
    prior: Literal["stage_one", "stage_two", "uniform"] = "stage_two"
    tau_split: bool = False
    baseline: bool = False
    rescales: bool = False
    class_start: bool = False
    distances: bool = False
    advised: bool = False


_untrained = functools.partial(ClassifierEntry, trained=False, prior="uniform")
_rescaled = functools.partial(ClassifierEntry, starts_from="affine", rescales=True)
_POWER_WEIGHTS = {"class_weights": "power:rho={rho}", "sampler": "instance_balanced"}

CLASSIFIERS: dict[str, ClassifierEntry] = {
    "joint": ClassifierEntry(
        dense.joint, label="Joint", starts_from="head", trained=False, prior="stage_one", baseline=True
    ),
    "ncm": _untrained(ncm.candidates, label="NCM", distances=True),
    "crt": ClassifierEntry(dense.crt, label="cRT", advised=True),
    "crt_last_block": ClassifierEntry(dense.crt, label="cRT + last block", train_parts="last_block"),
    "crt_all": ClassifierEntry(dense.crt, label="cRT + backbone", train_parts="all"),
    "crt_all_tenth": ClassifierEntry(dense.crt, label="cRT + backbone, 0.1 lr", train_parts="all", rate=0.1),
    "fine_tune": ClassifierEntry(dense.fine_tuned, label="Fine-tuned", starts_from="head", train_parts="all", rate=0.1),
    "tau_norm": _rescaled(tau_norm.candidates, label="τ-normalized", trained=False, prior="uniform", tau_split=True),
    "tau_search": _rescaled(tau_norm.searched, label="τ searched", trained=False, prior="uniform", tau_split=True),
    "tau_learned": _rescaled(tau_norm.learned, label="τ learned"),
    "lws": _rescaled(lws.candidates, label="LWS"),
    "lws_tau_norm": _rescaled(lws.from_tau_norm, label="LWS from τ-norm"),
    "cosine": ClassifierEntry(cosine.candidates, label="Cosine", ranges=cosine.RANGES, gives="cosine:scale={scale}"),
    "logit_adjusted": _untrained(
        adjusted.candidates,
        label="Logit-adjusted",
        ranges={"prior": adjusted.PRIORS},
        starts_from="head",
        preferred=adjusted.preferred,
        tau_split=True,
        rescales=True,
    ),
    "class_mean_cosine": _untrained(cosine.class_means, label="Class-mean cosine", ranges=cosine.RANGES),
    "zero_shot": _untrained(
        cosine.class_means, label="Zero-shot", ranges=cosine.RANGES, class_start=True, recipe={"head_start": "text"}
    ),
    "lift": ClassifierEntry(
        cosine.lift,
        label="LIFT's head",
        ranges=cosine.RANGES,
        gives="cosine:scale={scale}",
        class_start=True,
        advised=True,
        recipe={"loss": "logit_adjustment:tau={tau}", "sampler": "instance_balanced"},
    ),
    "disalign": _rescaled(alignment.disalign, label="DisAlign", recipe=_POWER_WEIGHTS),
    "marc": _rescaled(alignment.marc, label="MARC", recipe=_POWER_WEIGHTS),
    "mislas": ClassifierEntry(
        bounded.mislas,
        label="MiSLAS",
        ranges={"lr_factor": NOT_NEGATIVE},
        starts_from="affine",
        recipe={
            "loss": "label_aware_smoothing:head={head_smoothing}:tail={tail_smoothing}:shape={shape}:power={power}"
        },
    ),
    "max_norm": ClassifierEntry(
        bounded.max_norm,
        label="MaxNorm",
        ranges={"threshold": NOT_NEGATIVE},
        starts_from="affine",
        recipe={"class_weights": "effective_number:beta={beta}", "sampler": "instance_balanced"},
    ),
}
