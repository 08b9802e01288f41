import re

import pytest

NUMBER = r"[\d.]+"


@pytest.fixture
def rows(benchmark):
    """What `tools.benchmark study` prints: (its flags) -> row -> its numbers."""

    def printed(arguments):
        found = re.findall(rf"^([^\d\n]+?)((?: +{NUMBER})+)$", benchmark(f"study {arguments}"), re.MULTILINE)
        return {name: [float(number) for number in numbers.split()] for name, numbers in found}

    return printed


@pytest.mark.exhaustive
def test_features_extracted_once_give_the_reference_s_accuracies(rows):
    table = rows("--backbone resnet8 --image_size 8 --fraction 0.1 --stage_one_epochs 1 --crt_epochs 1 --lws_epochs 1")
    for name in ("joint", "ncm", "crt", "tau_norm", "lws"):
        (_, _, *theirs), (_, _, *ours) = table[f"reference, {name}"], table[f"ours, {name}"]
        assert theirs == pytest.approx(ours, abs=0.02)  # two of 107 test images: another order of summing
    for name in ("crt", "lws"):
        assert table[f"one pass, {name}"][2:] == table[f"reference, {name}"][2:]
    assert table["its epochs, times less"] == [2]
    for place in (0, 1):  # wall and CPU seconds
        parts = [numbers[place] for name, numbers in table.items() if name.startswith("ours, ") and "all" not in name]
        assert table["ours, all of it"][place] == pytest.approx(sum(parts), abs=0.4)
