"""Flags of version 0.1 that have another name since, for one release: what they said is said by the new ones."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence

Values = dict[str, object]


@dataclasses.dataclass(frozen=True)
class Renamed:
    """A flag that was renamed.

    Attributes:
      default: what it was when nobody gave it.
      instead: what says it now.
      translate: (values of all flags, its value) -> those that change.
    """

    default: str
    instead: str
    translate: Callable[[Values, str], Values]


def _gamma(values: Values, gamma: str) -> Values:
    loss = str(values["loss"])
    default = {"focal": "2.0", "sigmoid_focal": "0.5"}.get(loss)
    return {"loss": _with_parameter(loss, "gamma", gamma, default=default)} if default else {}


def _label_smoothing(values: Values, share: str) -> Values:
    loss = str(values["loss"])
    return {"loss": _with_parameter(loss, "label_smoothing", share, default="0.0")} if loss == "cross_entropy" else {}


def _beta(values: Values, beta: str) -> Values:
    names = ("class_weights", "classifier_class_weights")
    return {
        name: _with_parameter("effective_number", "beta", beta, default="0.9999")
        for name in names
        if values[name] == "effective_number"
    }


def _epochs_for(values: Values, epochs: str) -> Values:
    names, exported = _with_epochs(epochs), values["export_classifier"]
    classifiers = tuple(names.get(name, name) for name in values["classifiers"])
    return {"classifiers": classifiers, "export_classifier": names.get(exported, exported)}


def _with_epochs(epochs: str) -> dict[str, str]:
    """The classifiers in "lws:5,crt:3" -> their names since."""
    entries = (entry.partition(":") for entry in epochs.split(",") if ":" in entry)
    return {name: _with_parameter(name, "epochs", number) for name, _, number in entries}


def _with_parameter(name: str, parameter: str, value: str, *, default: str = "") -> str:
    return name if value == default else f"{name}:{parameter}={value}"


RENAMED: dict[str, Renamed] = {
    "focal_gamma": Renamed("2.0", "--loss=focal:gamma=2", _gamma),
    "label_smoothing": Renamed("0.0", "--loss=cross_entropy:label_smoothing=0.1", _label_smoothing),
    "class_weights_beta": Renamed("0.9999", "--class_weights=effective_number:beta=0.999", _beta),
    "classifier_epochs_for": Renamed("", "--classifiers=lws:epochs=5", _epochs_for),
}
# keras_cv's ResNets were named by their class. Published weights are of two, whose presets are as well drawn from.
_CV_RESNETS = {
    f"keras_cv/ResNet{depth}{version}Backbone": f"keras_cv/resnet{depth}{'_v2' * bool(version)}{weights}"
    for depth, weights in {18: "", 34: "", 50: "_imagenet", 101: "", 152: ""}.items()
    for version in ("", "V2")
}
# Values that were renamed: flag -> old value -> new one.
RENAMED_VALUES: dict[str, dict[str, str]] = {
    "backbone": _CV_RESNETS,
    "method": {"oltr_frozen": "oltr:train_backbone=false:backbone_rate=0.01:centroids_rate=1"},
}


def is_of_version_01(lines: Sequence[str]) -> bool:
    """Whether a flags.cfg was written by version 0.1, which wrote every flag."""
    return any(line.startswith(tuple(f"--{flag}=" for flag in RENAMED)) for line in lines)


def renamed_classifiers(lines: Sequence[str]) -> dict[str, str]:
    """What version 0.1 called the classifiers with epochs of their own -> their names since, by its flags.cfg."""
    flag = "--classifier_epochs_for="
    return _with_epochs(next((line.removeprefix(flag) for line in lines if line.startswith(flag)), ""))


def translated(values: Values, old: dict[str, str], *, begun_with: Sequence[str] = ()) -> Values:
    """The values of all flags, with what old flags and old values say in the words of today; it is warned of.

    Args:
      values: flag -> value.
      old: those of `RENAMED` that were given -> value.
      begun_with: the lines of the flags.cfg in the work folder. Version 0.1 refused no flag that did nothing.
    Raises:
      ValueError: an old flag that would do nothing.
    """
    values = dict(values)
    for flag, value in old.items():
        renamed = RENAMED[flag]
        changes = renamed.translate(values, value)
        if not changes and f"--{flag}={value}" in begun_with:
            continue
        if not changes and value != renamed.default:
            raise ValueError(f"--{flag} would do nothing in this run; it is {renamed.instead} now. Received: {value}")
        if value != renamed.default:
            warnings.warn(
                f"--{flag}={value} is {renamed.instead} now; the old name will be removed in the next release.",
                stacklevel=2,
            )
        values |= changes
    for flag, names in RENAMED_VALUES.items():
        if values[flag] in names:
            new = names[values[flag]]
            warnings.warn(f"--{flag}={values[flag]} is --{flag}={new} now.", stacklevel=2)
            values[flag] = new
    return values
