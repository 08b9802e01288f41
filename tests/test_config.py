import dataclasses
import pathlib

import pytest
from absl import flags

from keras_lt import config
from keras_lt.config import RunConfig

FLAGS = pathlib.Path(__file__).parents[1] / "flags"


def parse(*arguments):
    flag_values = flags.FlagValues()
    config.define_flags(flag_values)
    flag_values(["keras_lt", *arguments])
    return flag_values


def test_overrides_come_after_the_flag_file():
    path = f"--flagfile={FLAGS}/places_lt.cfg"
    assert config.from_flags(parse(path, "--epochs=2", "--pretrained=")).epochs == 2
    assert config.from_flags(parse("--epochs=2", path)).epochs == 30  # a flag file is read in its place


def test_places_lt_is_the_published_recipe():
    run_config = config.read_flag_file(FLAGS / "places_lt.cfg")
    assert run_config.backbone == "keras_applications/ResNet152"
    assert run_config.pretrained == "imagenet"
    assert (run_config.train_parts, run_config.backbone_lr_multiplier) == ("last_block", 0.1)
    one, two = run_config.stage_one_recipe, run_config.stage_two_recipe("crt")
    assert (one.epochs, one.batch_size, one.learning_rate, one.weight_decay) == (30, 256, 0.1, 5e-4)
    assert (two.epochs, two.sampler, two.loss) == (10, "class_balanced", "cross_entropy")
    assert run_config.stage_two_recipe("lws").epochs == 5


def test_saved_flags_replay_the_run(tmp_path):
    run_config = RunConfig(seed=7, classifiers=("lws", "ncm"), overwrite=True, learning_rate=0.125, pretrained="")
    run_config = dataclasses.replace(run_config, schedule="multistep", decay_epochs=(3, 4))
    run_config.save(tmp_path / "flags.cfg")
    assert config.read_flag_file(tmp_path / "flags.cfg") == run_config


def test_differences_name_the_flags_that_make_another_run():
    run_config = RunConfig()
    same = dataclasses.replace(run_config, workdir="/elsewhere", classifiers=("lws",), export_classifier="lws")
    assert run_config.differences(same) == []
    other = dataclasses.replace(run_config, seed=1, sampler="square_root")
    assert run_config.differences(other) == [
        "--seed=0 there, --seed=1 now",
        "--sampler=instance_balanced there, --sampler=square_root now",
    ]


def test_the_work_folder_has_a_default():
    assert RunConfig().folder == pathlib.Path("runs/fashion_lt")
    assert RunConfig(workdir="/tmp/w").folder == pathlib.Path("/tmp/w")


def test_every_flag_has_help():
    assert all(field.metadata["help"].endswith(".") for field in dataclasses.fields(RunConfig))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classifiers=joint,lsw"], r"--classifiers must name some of joint, ncm, crt.*Received: \['lsw'\]"),
        (["--classifiers="], "--classifiers must name some of"),
        (["--export_classifier=lsw"], "--export_classifier must be one of joint"),
        (["--dataset=fashion"], "dataset must be one of fashion_lt, imagenet_lt.*Received: dataset=fashion"),
        (
            ["--dataset=places_lt", "--imbalance_ratio=50"],
            "places_lt takes no such option. Received: imbalance_ratio=50",
        ),
        (["--classifier_epochs_for=lsw:5"], "must be classifier:epochs.*Received: lsw:5"),
        (["--classifier_epochs_for=lws:0"], "epochs must be at least 1"),
        (["--decay_epochs=160,x"], "--decay_epochs must be ints, comma-separated. Received: 160,x"),
        (["--decay_epochs=160"], "decay_epochs belong to schedule=multistep"),
        (["--backbone=resnet51"], "backbone must be one of .*resnet50"),
        (["--backbone=resnet152", "--pretrained=imagenet"], "keras_applications/ResNet152"),
        (["--batch_norm=update"], "batch_norm=update needs stage_two=images"),
        (["--feature_views=4", "--stage_two=images"], "--feature_views belong to --stage_two=features"),
        (["--devices=GPU:0"], "--devices belong to --strategy=mirrored. Received: --strategy=auto"),
        (["--base_batch_size=-1"], "--base_batch_size must be at least 0"),
        (["--random_erasing=2"], r"random_erasing must lie in \[0, 1\]"),
        (["--tau_split=test"], "no estimate.*--i_know_this_is_test"),
        (["--epochs=0"], "epochs must be at least 1"),
        (["--learning_rate=-1"], "learning_rate must be finite and at least 0"),
        (["--image_size=-3"], "--image_size must be at least 0"),
    ],
)
def test_values_that_cannot_be_are_refused_before_any_work(arguments, message):
    flag_values = parse(*arguments)
    with pytest.raises(ValueError, match=message):
        config.from_flags(flag_values)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--sampler=balanced", "class_balanced"),
        ("--classifier_sampler=balanced", "class_balanced"),
        ("--loss=ce", "cross_entropy"),
        ("--strategy=gpu", "mirrored"),
        ("--epoch=3", "Did you mean: epochs"),
    ],
)
def test_wrong_names_are_answered_with_the_valid_ones(argument, message):
    with pytest.raises(flags.Error, match=message):
        parse(argument)


def test_a_run_config_made_in_python_is_checked_alike():
    with pytest.raises(ValueError, match="dataset must be one of fashion_lt, imagenet_lt"):
        RunConfig(dataset="fashion")


@pytest.mark.parametrize("head", [{"loss": "ldam"}, {"head": "cosine"}, {"method": "fslwf"}])
@pytest.mark.parametrize("name", ["tau_norm", "tau_search", "tau_learned", "lws", "lws_tau_norm"])
def test_what_starts_from_a_dense_layer_is_refused_on_another_head_before_any_training(name, head):
    RunConfig(classifiers=("joint", "ncm", "crt", "cosine"), **head)
    with pytest.raises(ValueError, match="start from a dense layer's weights"):
        RunConfig(classifiers=("joint", name), **head)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "bbn", "loss": "ldam"}, "--method=bbn has a classifier of its own"),
        ({"method": "fslwf", "head": "cosine"}, "--method=fslwf has a classifier of its own"),
        ({"loss": "ldam", "head": "dense"}, "loss=ldam needs a cosine head"),
        ({"classifier_resampling": "smote", "stage_two": "images"}, "makes features needs --stage_two=features"),
        ({"class_weights_from": 3}, "class_weights_from must be below epochs, and needs class_weights"),
        ({"classifiers": ()}, "--classifiers must name some of"),
    ],
)
def test_systems_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**{"classifiers": ("joint",), **changes})


def test_a_method_adds_a_row_of_its_own_before_the_classifiers():
    assert RunConfig(method="oltr", classifiers=("joint", "crt")).systems == ["oltr", "joint", "crt"]
    assert RunConfig(method="bbn", classifiers=()).systems == ["bbn"]
    assert RunConfig(classifiers=("crt",)).systems == ["crt"]


def test_help_goes_by_topic_and_shows_defaults_and_choices():
    flag_values = parse()
    text = config.help_text(flag_values)
    topics = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert topics[:3] == ["Data", "The run", "Network"]
    assert "  --batch_size=512\n      Images per step, over all devices.\n" in text
    assert "[frozen | update]" in text
    assert all(f"  --{field.name}=" in text for field in dataclasses.fields(RunConfig))


def test_cuts_are_a_papers_unless_given():
    assert RunConfig().load_data().groups.cuts == (100, 20)
    assert RunConfig(shot_cuts="oltr").load_data().groups.cuts == (99, 21)
    assert RunConfig(shot_cuts="lvis", few_below=50).load_data().groups.cuts == (100, 50)
    with pytest.raises(ValueError, match=r"few_below must not exceed many_above.*=200, many_above=100"):
        RunConfig(few_below=200)
    with pytest.raises(ValueError, match="--shot_cuts must be one of kang, oltr, lvis"):
        RunConfig(shot_cuts="mislas")
    with pytest.raises(ValueError, match="--many_above must be at least 0"):
        RunConfig(many_above=-5)
