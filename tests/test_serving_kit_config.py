"""What starts a server: the list of its models, and the files of docker."""

import pathlib
import re

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_lt.run import Run
from tools.serving import client, models_config

KIT = pathlib.Path(client.__file__).parent


def parsed_models_config(export):
    return text_format.Parse((export / models_config.NAME).read_text(), model_server_config_pb2.ModelServerConfig())


def test_models_config_names_what_is_exported(tmp_path, capsys):
    run = tmp_path / "run"
    for name in ("lws/2", "lws/.3.part", "ncm"):  # the second while an export is being written
        (run / "export" / name).mkdir(parents=True)
    (run / "export/lws/2/saved_model.pb").touch()
    models_config.main([f"--workdir={run}"])
    (model,) = parsed_models_config(run / "export").model_config_list.config
    assert (model.name, model.model_platform) == ("lws", "tensorflow")
    base_path = run / "export" / pathlib.Path(model.base_path).relative_to(models_config.MOUNTED_AT)
    assert base_path == Run(run).latest_export(model.name).parent
    assert not model.HasField("model_version_policy")  # the newest, which is the default
    assert capsys.readouterr().out == f"{run}/export/models.config: lws\n"


def test_models_config_of_several(tmp_path):
    for name in ("tau_norm", "joint"):
        (tmp_path / f"export/{name}/10").mkdir(parents=True)
        (tmp_path / f"export/{name}/10/saved_model.pb").touch()
    models_config.main([f"--workdir={tmp_path}"])
    models = parsed_models_config(tmp_path / "export").model_config_list.config
    assert {model.name: model.base_path for model in models} == {
        "joint": "/models/joint",
        "tau_norm": "/models/tau_norm",
    }


def test_models_config_of_nothing_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"holds no SavedModel; python -m keras_lt.export --workdir"):
        models_config.main([f"--workdir={tmp_path}"])


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.batching.yml"])
def test_the_server_reads_the_list_where_the_export_folder_is_mounted(name):
    compose = (KIT / name).read_text()
    assert f"- --model_config_file={models_config.MOUNTED_AT}/{models_config.NAME}\n" in compose
    if name == "docker-compose.yml":
        assert f"target: {models_config.MOUNTED_AT}\n" in compose
        assert "source: ${EXPORT:?" in compose
    else:
        assert "- --batching_parameters_file=/serving/batching.config\n" in compose
        assert "- ./batching.config:/serving/batching.config:ro\n" in compose


@pytest.fixture
def given(monkeypatch):
    """The arguments of the client's command -> what it makes of them, without a server."""
    seen = {}

    def stop(self, url, name):
        seen.update(url=url, name=name)
        raise OSError

    monkeypatch.setattr(client.Model, "__init__", stop)

    def parse(command_line):
        with pytest.raises(SystemExit, match="Error"):
            client.main(command_line)
        return seen

    return parse


def test_the_server_takes_what_the_client_sends_unless_told_otherwise(given):
    url = given(["--model=lws", "--images", "x"])["url"]
    compose = (KIT / "docker-compose.yml").read_text()
    assert f"${{REST_PORT:-{url.rpartition(':')[2]}}}:8501" in compose
    merged = re.search(r"max_batch_size { value: (\d+) }", (KIT / "batching.config").read_text())
    assert int(merged[1]) >= client.BATCH


def test_the_commands_of_the_readme_are_understood(given):
    commands = re.findall(r"^python -m tools\.serving\.client (.+)$", (KIT / "README.md").read_text(), re.M)
    assert commands
    for command in commands:
        assert given(command.partition("  #")[0].split())["name"] == "lws"
