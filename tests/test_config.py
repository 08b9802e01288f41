import dataclasses
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from keras_lt import config, train
from keras_lt.config import RunConfig
from keras_lt.config.flags import check_places
from keras_lt.config.paths import differences
from keras_lt.recipe import SAME, Recipe
from tests.conftest import some_of

FLAGS = pathlib.Path(__file__).parents[1] / "flags"


@pytest.fixture(autouse=True)
def no_runs_here(tmp_path, monkeypatch):
    """What is refused must not depend on the runs that lie in the current folder."""
    monkeypatch.chdir(tmp_path)


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
    assert run_config.classifiers[-1] == "lws:epochs=5"
    assert run_config.stage_two_recipe("lws:epochs=5").epochs == 5


def test_saved_flags_replay_the_run(tmp_path):
    run_config = RunConfig(seed=7, classifiers=("lws", "ncm"), overwrite=True, learning_rate=0.125, pretrained="")
    run_config = dataclasses.replace(run_config, schedule="multistep", decay_epochs=(3, 4))
    run_config.save(tmp_path / "flags.cfg")
    assert config.read_flag_file(tmp_path / "flags.cfg") == run_config


def test_differences_name_the_flags_that_make_another_run():
    run_config = RunConfig()
    same = dataclasses.replace(run_config, workdir="/elsewhere", classifiers=("lws",), export_classifier="lws")
    assert differences(run_config, same) == []
    other = dataclasses.replace(run_config, seed=1, sampler="square_root")
    assert sorted(differences(run_config, other)) == [
        "--sampler=instance_balanced there, --sampler=square_root now",
        "--seed=0 there, --seed=1 now",
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
        (["--image_size=100000"], r"--image_size squared must be at most 100,000,000\. Received: 100000"),
        (["--dataset=fashion"], "dataset must be one of fashion_lt, imagenet_lt.*Received: dataset=fashion"),
        (
            ["--dataset=places_lt", "--imbalance_ratio=50"],
            "places_lt takes no such option. Received: imbalance_ratio=50",
        ),
        (["--classifiers=lws:epochs=0"], "epochs must be at least 1"),
        (["--classifiers=lws:depth=2"], r"lws has the parameters epochs=90, .*Received: classifier=lws:depth=2"),
        (["--classifiers=ncm:epochs=2"], "ncm has no parameters"),
        (["--classifiers=crt,crt"], "must name each once. Received: crt twice"),
        (["--sampler=balanced"], "sampler must be one of instance_balanced, class_balanced"),
        (["--classifier_sampler=balanced"], "In stage two: sampler must be one of instance_balanced, class_balanced"),
        (["--loss=ce"], "loss must be one of cross_entropy"),
        (["--loss=focal:alpha=1"], "focal has the parameters gamma=2.0"),
        (["--method=bbn:branches=3"], "bbn has no parameters"),
        (["--method=oltr:backbone_rate=fast"], "backbone_rate must be a number"),
        (["--seed=-1"], "--seed must be at least 0"),
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
        (["--batch_size=0"], "batch_size must be at least 1"),
        (["--classifiers=crt:batch_size=0"], "batch_size must be at least 1"),
        (["--engine=faster"], "engine must be one of auto, weighted, stratified, instance. Received: engine='faster'"),
        (["--learning_rate=-1"], "learning_rate must be finite and at least 0"),
        (["--image_size=-3"], "--image_size must be at least 0"),
        (["--epochs=100001"], "epochs must be at most 100,000"),
        (["--classifiers=crt:epochs=10000000000"], "epochs must be at most 100,000"),
        ([f"--steps_per_epoch={2**31}"], "--steps_per_epoch must be .* at most 2,147,483,647"),
        ([f"--seed={2**63}"], "--seed must be .* at most 9,223,372,036,854,775,807"),
        (["--feature_views=1001"], "--feature_views must be .* at most 1,000"),
        (["--randaugment=101"], r"randaugment must lie in \[0, 100\]"),
        (["--mixup=inf"], r"mixup must lie in \[0, 1e\+06\]"),
        (["--head=cosine:scale=0"], "scale must be finite and at least 1e-06"),
        (["--head=cosine:scale=nan"], "scale must be finite"),
        (["--classifiers=cosine:scale=-1"], "scale must be finite and at least 1e-06"),
        (["--classifiers=max_norm:threshold=inf"], "threshold must be finite"),
        (["--classifiers=max_norm:threshold=-1"], "threshold must be finite and at least 0"),
        (["--classifiers=mislas:lr_factor=-1"], "lr_factor must be finite and at least 0"),
        (
            ["--classifiers=logit_adjusted:prior=train"],
            "prior must be one of counts, effective. Received: prior='train'",
        ),
        ([f"--classifiers=crt:steps_per_epoch={2**31}"], r"steps_per_epoch must lie in \[0, 2\.14748e\+09\)"),
        (["--method=ride:experts=1000000"], r"experts must lie in \[2, 101\)"),
        (["--method=balpoe:experts=-1"], r"experts must lie in \[2, 101\)"),
        (["--feature_loss=range:k=0"], r"k must lie in \[1, 1001\)"),
    ],
)
def test_values_that_cannot_be_are_refused_before_any_work(arguments, message):
    flag_values = parse(*arguments)
    with pytest.raises(ValueError, match=message):
        config.from_flags(flag_values)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--stage_two=pixels", "features"),
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
    with pytest.raises(ValueError, match="starts from a dense layer's weights"):
        RunConfig(classifiers=("joint", name), **head)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "bbn", "loss": "ldam"}, "method=bbn has loss='cross_entropy' and no other"),
        ({"method": "fslwf", "head": "cosine"}, "method=fslwf has a classifier of its own"),
        ({"loss": "ldam", "head": "dense"}, "loss=ldam needs head=cosine:scale=30.0"),
        (
            {"classifier_resampling": "smote", "stage_two": "images", "classifiers": ("crt",)},
            "crt is trained on images, and its resampling makes features",
        ),
        ({"classifier_resampling": "smote", "classifiers": ("fine_tune",)}, "fine_tune is trained on images"),
        ({"classifier_resampling": "smote"}, "would do nothing in this run: no classifier of it"),
        ({"classifier_sampler": "square_root"}, "would do nothing in this run: no classifier of it"),
        ({"classifier_sampler": "square_root", "classifiers": ("lift", "marc")}, "would do nothing in this run"),
        ({"classifier_loss": "focal", "classifiers": ("mislas", "lift")}, "would do nothing in this run"),
        ({"classifier_loss": "focal", "classifiers": ("crt:loss=los",)}, "would do nothing in this run"),
        ({"classifier_class_weights": "power", "classifiers": ("disalign", "max_norm")}, "would do nothing in this"),
        ({"method": "oltr", "mixup": 0.2}, "method=oltr has mixup=0 and no other"),
        (
            {"mixup": 0.2, "stage_two": "images", "classifiers": ("crt",), "classifier_class_weights": "power"},
            "class_weights need one class per image.*crt on images",
        ),
        (
            {"sampler": "square_root", "engine": "instance"},
            "engine=instance.*Received: engine=instance, sampler=square",
        ),
        ({"feature_views": 4, "classifiers": ("ncm",)}, "--feature_views would do nothing"),
        (
            {"classifier_resampling": "smote", "feature_views": 4, "classifiers": ("crt",)},
            "--feature_views would do no",
        ),
        ({"decay_factor": 0.5}, "--decay_factor would do nothing in this run: it belongs to multistep schedules"),
        ({"classifier_schedule": "multistep"}, "In stage two: decay_epochs belong to schedule=multistep"),
        ({"stage_one": "features"}, "stage_one=features trains nothing of the backbone"),
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
    assert "  --batch_size=512\n      Images per step, over all devices together.\n" in text
    assert "  --learning_rate=0.2\n      Peak learning rate of stage one.\n" in text
    assert "  --classifier_learning_rate=0.0\n      Peak learning rate of stage two. 0 is --learning_rate.\n" in text
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


def test_the_flags_of_both_stages_are_the_recipes_fields():
    names = {field.name for field in dataclasses.fields(RunConfig)}
    for field in dataclasses.fields(Recipe):
        assert field.name in names
        own = field.metadata["stage_two"] not in (None, SAME)
        assert (f"classifier_{field.name}" in names) == own
    config = RunConfig(weight_decay=0.01, classifier_loss="focal:gamma=1", classifier_schedule="cosine_per_step")
    two = config.stage_two_recipe("crt:weight_decay=0.5:epochs=3")
    assert (two.weight_decay, two.loss, two.schedule, two.epochs) == (0.5, "focal:gamma=1", "cosine_per_step", 3)
    assert (two.feature_loss, two.class_weights_from, two.sampler) == ("", 0, "class_balanced")
    assert config.stage_one_recipe.weight_decay == 0.01


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["--loss=focal", "--focal_gamma=1"], {"loss": "focal:gamma=1"}),
        (["--loss=sigmoid_focal", "--focal_gamma=1"], {"loss": "sigmoid_focal:gamma=1"}),
        (["--label_smoothing=0.1"], {"loss": "cross_entropy:label_smoothing=0.1"}),
        (
            ["--class_weights=effective_number", "--class_weights_beta=0.99"],
            {"class_weights": "effective_number:beta=0.99"},
        ),
        (
            ["--classifiers=ncm,lws", "--classifier_epochs_for=lws:5", "--export_classifier=lws"],
            {"classifiers": ("ncm", "lws:epochs=5"), "export_classifier": "lws:epochs=5"},
        ),
        (
            ["--method=oltr_frozen"],
            {"method": "oltr:train_backbone=false:backbone_rate=0.01:centroids_rate=1"},
        ),
        (["--backbone=keras_cv/ResNet152V2Backbone"], {"backbone": "keras_cv/resnet152_v2"}),
    ],
)
def test_flags_of_version_0_1_are_said_by_the_new_ones_with_a_warning(arguments, changes):
    with pytest.warns(UserWarning, match=" now"):
        assert config.from_flags(parse(*arguments)) == RunConfig(**changes)


def test_a_flag_file_of_version_0_1_reads_without_a_word_where_it_has_the_defaults(tmp_path, recwarn):
    lines = ["--focal_gamma=2.0", "--label_smoothing=0.0", "--class_weights_beta=0.9999", "--classifier_epochs_for="]
    (tmp_path / "flags.cfg").write_text("\n".join(["--loss=focal", "--class_weights=effective_number", *lines]))
    read = config.read_flag_file(tmp_path / "flags.cfg")
    assert (read.loss, read.class_weights) == ("focal", "effective_number")
    assert not recwarn.list


def test_an_old_flag_that_would_do_nothing_is_refused():
    with pytest.raises(ValueError, match=r"--focal_gamma would do nothing in this run; it is --loss=focal:gamma=2 now"):
        config.from_flags(parse("--focal_gamma=1"))


@pytest.mark.parametrize(
    "command",
    some_of(["train", "evaluate", "export", "predict", "prepare", "describe", "repeat", "compare"], "train", "predict"),
)
def test_help_answers_before_keras_is_loaded(command):
    """In a process where neither Keras nor TensorFlow can be imported."""
    program = f"""
import runpy, sys
sys.modules["keras"] = sys.modules["tensorflow"] = None
sys.argv = ["{command}", "--help"]
runpy.run_module("keras_lt.{command}", run_name="__main__", alter_sys=True)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "--" in answer.stdout


def test_a_refusal_leaves_nothing_behind(arrays_dir, tmp_path):
    """Neither of flags, nor of what the data or a method say of them."""
    without_base_classes = {"method": "fslwf", "classifiers": ("ncm",), "many_above": 1000}
    not_learned = {"export_classifier": "oltr"}
    others = ({"batch_size": 500}, {"target_prior": "no such file"})
    for changes in (*others, without_base_classes, not_learned):
        arguments = {"dataset": "arrays", "data_dir": str(arrays_dir), "workdir": str(tmp_path / "run"), **changes}
        with pytest.raises(SystemExit, match="Error: "):
            train.run(RunConfig(**{"batch_size": 16, "epochs": 1, **arguments}))
        assert not (tmp_path / "run").exists()


def test_a_missing_library_is_named_before_the_data_are_opened(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    config = RunConfig(dataset="arrays", data_dir="nowhere", workdir=str(tmp_path / "run"), export_onnx=True)
    with pytest.raises(SystemExit, match=r"pip install 'keras_lt\[onnx\]'"):
        train.run(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["augmentation", "randaugment", "random_erasing"])
def test_images_are_augmented_where_a_classifier_is_trained_on_them(name):
    flag = {"augmentation": "crop", "randaugment": 2, "random_erasing": 0.5}[name]
    frozen = {"stage_one": "features", "train_parts": "classifier", name: flag}
    for changes in ({"classifiers": ("crt_last_block",)}, {"classifiers": ("crt",), "stage_two": "images"}):
        assert getattr(RunConfig(**frozen, **changes), name) == flag
    with pytest.raises(ValueError, match=f"--{name} would do nothing in this run: no image of it is augmented"):
        RunConfig(**frozen, classifiers=("crt",), stage_two="features")


@pytest.mark.parametrize("name", ["workdir", "images", "model", "predictions"])
def test_an_empty_path_is_not_the_default(name):
    """As `--workdir=$RUN` gives where nobody has set RUN; a flag file of a run may leave out data and weights."""
    flag_values = flags.FlagValues()
    config.define_evaluate_flags(flag_values)
    flag_values(["command", "--data_dir=", "--pretrained="])
    check_places(flag_values)
    flag_values(["command", f"--{name}="])
    with pytest.raises(ValueError, match=rf"^--{name} must be a path, or be left out\. Received: --{name}=$"):
        check_places(flag_values)
