"""What a run's own numbers advise to do next: a sentence or two each, with the reason.

A piece of advice is a function of the results and the details of a run; it returns "" where the numbers do not call for
it. What concerns the choice of a classifier goes by val, as every choice does.
"""

import math
from collections.abc import Mapping

from keras_lt.classifiers import CLASSIFIERS
from keras_lt.report.details import RunDetails
from keras_lt.report.systems import BASELINE, classifier_facts
from keras_lt.report.tables import as_number, best_classifier, display_name, on_val, percent
from keras_lt.significance import proportion_interval

NEAR_ZERO = 0.05  # accuracy on few-shot classes
LEARNED_BY_HEART = 0.97  # accuracy in training, mean over classes
FAR_BELOW = 0.25  # of it lies that on val
CONFUSED, FEWEST = 0.25, 3  # share of a class's test examples, and how many these are at least
SHOWN = 3  # pairs of classes


def advise(results: Mapping, details: RunDetails) -> list[str]:
    """All that the numbers call for.

    Args:
      results: the content of results.json.
    """
    return [text for advice in ADVICE if (text := advice(results, details))]


def on_capped_heads(results: Mapping, details: RunDetails) -> str:
    """Joint hardly knows few-shot classes, so what only rescales its logits cannot either, unless val says it can."""
    del details
    few = on_val(results, "few")
    joint = few.get(BASELINE, math.nan)
    if not joint <= NEAR_ZERO:
        return ""
    rescaled = {name: of for name, of in few.items() if classifier_facts(name).rescales}
    others = [of for name, of in few.items() if name not in rescaled and name != BASELINE]
    if rescaled and others and max(rescaled.values()) >= max(others):
        return ""
    named = f" ({', '.join(map(display_name, rescaled))})" if rescaled else ""
    return (
        f"Joint reaches {percent(joint)}% on few-shot classes of val: its logits hardly tell them apart, so heads that "
        f"only rescale or shift these{named} are capped. Take one that learns those classes from the features: "
        f"{_learned_heads(results)}."
    )


def on_small_val(results: Mapping, details: RunDetails) -> str:
    """The 95% interval of an accuracy on val is as wide as the whole grid of tau spreads: val cannot choose."""
    chosen_on_val = details.val_examples and details.flags.get("tau_split", "val") == "val"
    for name, curve in details.curves.items() if chosen_on_val else ():
        accuracies = [as_number(point.get("all")) for point in curve]
        best, spread = max(accuracies), max(accuracies) - min(accuracies)
        low, high = proportion_interval(best, details.val_examples)
        if high - low >= spread:
            tau = results["classifiers"][name]["chosen"]["tau"]
            return (
                f"{percent(best)}% on val ({details.val_examples:,} in all) may be {percent(low)} to "
                f"{percent(high)}. {display_name(name)}'s differs by {percent(spread)} points from the worst τ that "
                f"was tried to the best, so τ = {tau:.4g} may be chance. Take a larger val split, or a head that "
                f"chooses nothing: {_learned_heads(results)}."
            )
    return ""


def on_learning_by_heart(results: Mapping, details: RunDetails) -> str:
    """Stage one is right on nearly all that it trained on, and Joint far less often on val."""
    joint = on_val(results, "class_mean").get(BASELINE, math.nan)
    trained = as_number(results["stage_one"].get("train_class_mean"))
    if not (trained >= LEARNED_BY_HEART and trained - joint >= FAR_BELOW):
        return ""
    frozen = details.flags.get("stage_one") == "features" or results.get("backbone") == ""  # none of feature vectors
    backbone = "" if frozen else "a pretrained backbone with --train_parts=classifier, augmentation, "
    return (
        f"Stage one ended at {percent(trained)}% on the examples that it trained on (mean over classes), "
        f"Joint has {percent(joint)}% on val: it knows them by heart. Try {backbone}more --weight_decay or fewer "
        "--epochs."
    )


def on_classes_in_two(results: Mapping, details: RunDetails) -> str:
    """Two classes are taken for each other so often that they may be one."""
    shown = details.exported or best_classifier(results)
    if shown not in details.scores:
        return ""
    scored = details.scores[shown]
    often = {
        (true, predicted): share
        for true, predicted, count, share in scored.confused_pairs(len(scored.labels))
        if count >= FEWEST and share >= CONFUSED
    }
    mutual = [pair for pair in often if pair[0] < pair[1] and pair[::-1] in often]
    if not mutual:
        return ""
    mutual.sort(key=lambda pair: -min(often[pair], often[pair[::-1]]))
    told = [
        f"{details.class_names[one]} and {details.class_names[other]} ({often[one, other]:.0%} and "
        f"{often[other, one]:.0%} of their test examples)"
        for one, other in mutual[:SHOWN]
    ]
    more = f"; and {len(mutual) - SHOWN} more pairs" if len(mutual) > SHOWN else ""
    return (
        f"{display_name(shown)} takes classes for each other both ways: {'; '.join(told)}{more}. Look whether they are "
        "one class under two names, or labelled without a clear line between them."
    )


def on_duplicates(results: Mapping, details: RunDetails) -> str:
    """Examples stand in two splits."""
    del results
    return shared_examples(details.duplicates)


def on_good_features(results: Mapping, details: RunDetails) -> str:
    """Class means alone beat the classifier that was trained with the features, by more than chance."""
    accuracies = on_val(results, "class_mean")
    entries = {name: classifier_facts(name) for name in accuracies}
    of_means = {n: accuracies[n] for n, e in entries.items() if not (e.trained or e.starts_from or e.class_start)}
    if BASELINE not in accuracies or not of_means or not details.val_examples:
        return ""
    best = max(of_means, key=of_means.get)
    joint = accuracies[BASELINE]
    if of_means[best] <= proportion_interval(joint, details.val_examples)[1]:
        return ""
    return (
        f"{display_name(best)}, which is nothing but the classes' means, reaches {percent(of_means[best])}% on val and "
        f"Joint {percent(joint)}% (mean over classes): the features tell the classes apart better than Joint does. "
        f"A balanced classifier on them is worth more than a longer stage one: {_learned_heads(results)}."
    )


def shared_examples(duplicates: Mapping[tuple[str, str], int]) -> str:
    """Says which splits share how many examples, as `DataRecord.duplicates` has them; empty where none do."""
    found = [f"{number:,} of {other} also in {one}" for (one, other), number in duplicates.items()]
    if not found:
        return ""
    return (
        f"Splits share examples, byte for byte: {', '.join(found)}. Scores count what was seen in training as "
        "recognized; take them out of one of the two."
    )


ADVICE = (on_duplicates, on_capped_heads, on_good_features, on_small_val, on_learning_by_heart, on_classes_in_two)


def _learned_heads(results: Mapping) -> str:
    """The advised ones that the run has, best on val first, or else the flag that adds them."""
    accuracies = on_val(results, "class_mean")
    there = sorted((name for name in accuracies if classifier_facts(name).advised), key=accuracies.get, reverse=True)
    if there:
        return f"{' or '.join(map(display_name, there))}, which this run has"
    return f"--classifiers={','.join(name for name, entry in CLASSIFIERS.items() if entry.advised)}"
