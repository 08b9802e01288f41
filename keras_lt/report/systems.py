"""What tables call the rows of a run, and which system of a paper a row is."""

import dataclasses
from collections.abc import Mapping

from keras_lt.classifiers import CLASSIFIERS, ClassifierEntry
from keras_lt.losses import CLASS_WEIGHTS, FEATURE_LOSSES, LOSSES
from keras_lt.methods import METHODS
from keras_lt.recipe import Recipe
from keras_lt.registry import Entry, split
from keras_lt.resampling import RESAMPLING
from keras_lt.samplers import SAMPLERS

BASELINE = next(name for name, entry in CLASSIFIERS.items() if entry.baseline)  # differences are to its scores
# Fields of stage one's recipe that make its own classifier another system than the plain one, and their families.
FIELDS: dict[str, Mapping[str, Entry]] = {
    "sampler": SAMPLERS,
    "loss": LOSSES,
    "feature_loss": FEATURE_LOSSES,
    "class_weights": CLASS_WEIGHTS,
    "resampling": RESAMPLING,
}


@dataclasses.dataclass(frozen=True)
class StageOne:
    """A system that is stage one's own classifier, by a recipe that differs in several fields.

    Attributes:
      label: as papers write it.
      changes: field of the recipe -> member.
      deferred: whether the class weights set in later.
    """

    label: str
    changes: Mapping[str, str]
    deferred: bool = False


# Those that differ in one field are called as its member is.
STAGE_ONE_SYSTEMS = {
    "cb_focal": StageOne("CB-Focal", {"loss": "sigmoid_focal", "class_weights": "effective_number"}),
    "ldam_drw": StageOne("LDAM + DRW", {"loss": "ldam", "class_weights": "effective_number"}, deferred=True),
}
OLTR_DECOUPLED = "oltr_decoupled"  # Kang et al.'s OLTR**, on their own stage one


def display_name(name: str) -> str:
    """The papers' way to write the name of a classifier, method or system, with its parameters; unknown ones as is."""
    base, *parameters = name.split(":")
    known: dict[str, Entry | StageOne] = {**LOSSES, **FEATURE_LOSSES, **STAGE_ONE_SYSTEMS, **METHODS, **CLASSIFIERS}
    label = {OLTR_DECOUPLED: "OLTR, decoupled", **{name: entry.label for name, entry in known.items()}}.get(base)
    return ", ".join((label or base, *map(_parameter_in_words, parameters)))


def _parameter_in_words(parameter: str) -> str:
    name, _, value = parameter.partition("=")
    if name in FIELDS:
        return in_words(name, value)
    return name if value.lower() == "true" else f"{name} {value}"


def in_words(field: str, member: str) -> str:
    """A member of a field's family within a sentence: "effective_number:beta=0.9" is "effective number (beta 0.9)"."""
    name, given = split(member)
    entry = FIELDS[field].get(name)
    parameters = ", ".join(f"{parameter} {value}" for parameter, value in given.items())
    label = entry.label if entry else name
    if label[1:2].islower():  # "Focal", but not "LDAM"
        label = label[0].lower() + label[1:]
    return label + (f" ({parameters})" if given else "")


def classifier_facts(name: str) -> ClassifierEntry:
    """The facts of a classifier; those of a method's own, which trains what it likes, are the defaults."""
    return CLASSIFIERS.get(split(name)[0]) or ClassifierEntry(lambda: None)


def has_own_row(method: str) -> bool:
    """Whether a method has a row of its own; one that is not known here, as runs of others may have, counts as such."""
    entry = METHODS.get(split(method)[0])
    return entry is None or entry.own_row


def system_of(classifier: str, *, method: str, recipe: Mapping[str, object]) -> str:
    """What `Published.scores` calls a classifier of a run; empty where papers have nothing of its kind.

    Args:
      method: of the run.
      recipe: of its stage one, with the fields of `recipe.Recipe`; one that is missing is plain.
    """
    name = split(classifier)[0]
    if has_own_row(method):
        return name if name == split(method)[0] else ""
    members = {field: split(str(recipe.get(field, getattr(Recipe, field))))[0] for field in FIELDS}
    changes = {field: member for field, member in members.items() if member != getattr(Recipe, field)}
    deferred = bool(recipe.get("class_weights_from"))
    if not changes:
        return name
    if name != BASELINE:
        return ""
    if len(changes) == 1 and not deferred and changes.keys() <= {"loss", "feature_loss"}:
        return next(iter(changes.values()))
    found = (key for key, of in STAGE_ONE_SYSTEMS.items() if (of.changes, of.deferred) == (changes, deferred))
    return next(found, "")
