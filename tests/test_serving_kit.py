"""The client against a server in this process that speaks TensorFlow Serving's REST API, and what starts a real one."""

import base64
import csv
import http.server
import json
import pathlib
import socket
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_lt.serving import export_saved_model
from tools.serving import client
from tools.serving.client import Model, find_images

KIT = pathlib.Path(client.__file__).parent
NAMES = ("cat", "dög", "eel")
DAMAGED = b"no image"
AVAILABLE = {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


class Handler(http.server.BaseHTTPRequestHandler):
    """One model, `lws`: what it says to images is up to `server.answer`, images -> (status, JSON)."""

    def do_GET(self):
        known = self.path == "/v1/models/lws"
        versions = self.server.versions
        status = versions.pop(0) if len(versions) > 1 else versions[0]
        self.reply(*((200, {"model_version_status": [status]}) if known else (404, {"error": "Could not find lsw"})))

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/models/lws:predict" or set(request) != {"instances"}:
            self.reply(404, {"error": f"Malformed request: POST {self.path}"})
            return
        images = []
        for row in request["instances"]:
            ((name, value),) = row.items()
            assert (name, set(value)) == ("image_bytes", {"b64"})
            images.append(base64.b64decode(value["b64"], validate=True))
        self.server.sizes.append(len(images))
        self.reply(*self.server.answer(images))

    def reply(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode() if isinstance(body, dict) else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.sizes, server.answer, server.versions = [], by_first_byte, [AVAILABLE]
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def pauses(monkeypatch):
    """How long the client would have slept."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.fixture(scope="module", params=["error", "nan"])
def on_bad_request(request):
    return request.param


@pytest.fixture(scope="module")
def exported(on_bad_request, tmp_path_factory):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    path = tmp_path_factory.mktemp("run") / "export" / "lws" / "2"
    return export_saved_model(model, path, class_names=NAMES, image_size=8, on_bad_request=on_bad_request)


def by_first_byte(images):
    """An image `b"1..."` is for certain of class 1; a damaged one refuses the request."""
    if DAMAGED in images:
        return 400, {"error": "Unknown image file format.\n\t [[{{node DecodeImage}}]]"}
    rows = [np.eye(3)[int(image[:1])].tolist() for image in images]
    return 200, {"predictions": [{"classes": NAMES, "logits": row, "probabilities": row} for row in rows]}


def of_saved_model(path):
    """Answers of an exported model, in rows, as TensorFlow Serving writes them: NaN is a bare word."""
    signature = tf.saved_model.load(path).signatures["serving_default"]

    def answer(images):
        try:
            outputs = {name: rows.numpy() for name, rows in signature(image_bytes=tf.constant(images)).items()}
        except tf.errors.InvalidArgumentError as error:
            return 400, {"error": error.message}
        rows = [{name: rows[i].tolist() for name, rows in outputs.items()} for i in range(len(images))]
        return 200, json.loads(json.dumps({"predictions": rows}, default=bytes.decode))

    return answer


def first_failing(failures, then=by_first_byte):
    """Answers with the given HTTP statuses first."""
    failures = list(failures)
    return lambda images: (failures.pop(0), {"error": "busy"}) if failures else then(images)


def write(folder, **contents):
    files = []
    for name, content in contents.items():
        files.append(folder / f"{name}.png")
        files[-1].write_bytes(content)
    return files


def labels(answers):
    return [None if isinstance(answer, str) else answer[0][0] for answer in answers]


def photos(folder):
    """Five images of noise in four formats and two folders."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 14, 3), np.uint8)
    (folder / "more").mkdir(parents=True)
    for image, name in zip(pixels, ("a.jpg", "b.PNG", "c.bmp", "d.gif", "more/e.jpeg"), strict=True):
        PIL.Image.fromarray(image).save(folder / name)
    return find_images([folder])


def test_images_get_what_the_exported_model_says_of_them(exported, server, tmp_path):
    files = photos(tmp_path / "photos")
    server.answer = of_saved_model(exported)
    answers = Model(server.url, "lws").classify(files)
    images = tf.constant([file.read_bytes() for file in files])
    expected = tf.saved_model.load(exported).signatures["serving_default"](image_bytes=images)["probabilities"].numpy()
    assert labels(answers) == [NAMES[best] for best in expected.argmax(1)]
    for answer, row in zip(answers, expected, strict=True):
        assert [share for _, share in answer] == sorted(share for _, share in answer)[::-1]
        np.testing.assert_allclose([dict(answer)[name] for name in NAMES], row, atol=1e-5)


def test_a_damaged_image_is_named_and_the_others_are_served(exported, on_bad_request, server, tmp_path):
    files = photos(tmp_path / "photos")
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[: len(whole) // 2])
    server.answer = of_saved_model(exported)
    answers = Model(server.url, "lws").classify(files)
    assert [file for file, answer in zip(files, answers, strict=True) if isinstance(answer, str)] == [files[1]]
    problem, sizes = {
        "error": ("HTTP 400: ", [5, 2, 1, 1, 3]),
        "nan": ("no image that the model can decode", [5]),
    }[on_bad_request]
    assert answers[1].startswith(problem)
    assert server.sizes == sizes


def test_numbers_that_are_none_get_no_label(server, tmp_path):
    """A model that says so of no image, but whose logits have overflowed."""
    answer = b'{"predictions": [{"probabilities": [NaN, NaN], "classes": ["cat", "eel"]}]}'
    server.answer = lambda images: (200, answer)
    assert Model(server.url, "lws").classify(write(tmp_path, image=b"1")) == ["the model's answer is not a number"]


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_batch_is_halved_down_to_the_culprit(server, tmp_path, status):
    server.answer = lambda images: (status if DAMAGED in images else 200, by_first_byte(images)[1])
    contents = {f"image{i}": DAMAGED if i == 5 else str(i % 3).encode() for i in range(8)}
    answers = Model(server.url, "lws").classify(write(tmp_path, **contents))
    assert labels(answers) == ["cat", "dög", "eel", "cat", "dög", None, "cat", "dög"]
    assert answers[5] == f"HTTP {status}: Unknown image file format. [[{{{{node DecodeImage}}}}]]"
    assert server.sizes == [8, 4, 4, 2, 1, 1, 2]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_after_longer_and_longer_pauses(server, pauses, tmp_path, status):
    server.answer = first_failing([status] * 4)
    assert labels(Model(server.url, "lws", retries=4).classify(write(tmp_path, image=b"1"))) == ["dög"]
    assert pauses == [1, 2, 4]  # the second attempt is made at once


@pytest.mark.parametrize("status", [401, 404, 500])
def test_what_no_waiting_heals_is_not_tried_again(server, pauses, tmp_path, status):
    server.answer = first_failing([status])
    with pytest.raises(OSError, match=f"HTTP {status}: busy"):
        Model(server.url, "lws").classify(write(tmp_path, image=b"1"))
    assert (server.sizes, pauses) == ([1], [])


def test_patience_ends(server, pauses, tmp_path):
    server.answer = first_failing([503] * 9)
    with pytest.raises(OSError, match="HTTP 503: busy"):
        Model(server.url, "lws", retries=8).classify(write(tmp_path, image=b"1"))
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_slow_answer_is_asked_for_again(server, tmp_path):
    answered = threading.Event()

    def answer(images):
        if len(server.sizes) == 1:  # the first request
            answered.wait(10)
        return by_first_byte(images)

    server.answer = answer
    assert labels(Model(server.url, "lws", timeout=0.5).classify(write(tmp_path, image=b"2"))) == ["eel"]
    answered.set()
    assert server.sizes == [1, 1]


def test_without_a_server_every_attempt_is_made(pauses, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(OSError, match="refused"):
        Model(url, "lws", retries=3).classify(write(tmp_path, image=b"1"))
    assert pauses == [1, 2]


@pytest.mark.parametrize(
    ("answer", "message"),
    [(b"<html>Welcome</html>", "an answer without predictions"), ({"predictions": [[0.1]]}, "as those of keras_lt")],
)
def test_another_kind_of_server_or_model_is_said(server, tmp_path, answer, message):
    server.answer = lambda images: (200, answer)
    with pytest.raises(ValueError, match=message):
        Model(server.url, "lws").classify(write(tmp_path, image=b"1"))


def test_the_model_is_waited_for(server, pauses):
    server.versions = [AVAILABLE | {"state": "LOADING"}, AVAILABLE | {"state": "LOADING"}, AVAILABLE]
    assert Model(server.url, "lws").wait(60) == "2"
    assert pauses == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("lsw", "AVAILABLE", "HTTP 404: Could not find lsw"),
        ("lws", "LOADING", "not ready after 0 s: lws is LOADING"),
        ("lws", "END", "cannot load lws: no graph"),
    ],
)
def test_but_not_for_what_does_not_come(server, name, state, message):
    failed = {"error_code": "NOT_FOUND", "error_message": "no graph"}
    server.versions = [AVAILABLE | {"state": state} | ({"status": failed} if state == "END" else {})]
    with pytest.raises((OSError, ValueError), match=message):
        Model(server.url, name).wait(0)


def test_the_order_is_that_of_the_files_whatever_comes_back_first(server, tmp_path, capsys):
    write(tmp_path, a=b"0", b=b"1", c=b"2", d=b"0")

    def answer(images):
        time.sleep(0.3 if images == [b"0", b"1"] else 0)
        return by_first_byte(images)

    server.answer = answer
    client.main([f"--url={server.url}", "--model=lws", f"--images={tmp_path}", "--batch_size=2", "--workers=2"])
    lines = [line.removeprefix(f"{tmp_path}/").split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [["a.png", "cat"], ["b.png", "dög"], ["c.png", "eel"], ["d.png", "cat"]]
    assert sorted(server.sizes) == [2, 2]


def test_a_file_that_is_gone_does_not_stop_the_others(server, tmp_path):
    answers = Model(server.url, "lws").classify([tmp_path / "gone.png", *write(tmp_path, image=b"1")])
    assert "No such file or directory" in answers[0]
    assert labels(answers) == [None, "dög"]
    assert server.sizes == [1]


def test_images_are_found_by_name_in_folders_and_taken_as_named(tmp_path):
    for name in ("b.JPEG", "a/z.png", "a/notes.txt", "c.bmp/inside.gif", "scan"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(file.relative_to(tmp_path)) for file in find_images([tmp_path, tmp_path / "scan"])]
    assert found == ["a/z.png", "b.JPEG", "c.bmp/inside.gif", "scan"]
    (tmp_path / "empty").mkdir()
    for nothing in ("notes", "empty"):
        with pytest.raises(ValueError, match=rf"must be files, or folders with \.jpg.*Received: .*{nothing}"):
            find_images([tmp_path / nothing])


def test_the_command_prints_a_line_per_image_and_writes_a_csv(server, tmp_path, capsys):
    write(tmp_path, a=b"2", b=DAMAGED, c=b"1")
    output = tmp_path / "predictions.csv"
    command_line = [f"--url={server.url}/", "--model=lws", f"--images={tmp_path}", f"--output={output}"]
    with pytest.raises(SystemExit, match="1 of 3 images without a label"):  # exit code 1
        client.main(command_line)
    printed = capsys.readouterr()
    assert printed.out.replace(f"{tmp_path}/", "").splitlines() == [
        "a.png  eel 1.000, cat 0.000, dög 0.000",
        "b.png  HTTP 400: Unknown image file format. [[{{node DecodeImage}}]]",
        "c.png  dög 1.000, cat 0.000, eel 0.000",
    ]
    assert "lws, version 2" in printed.err
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label_1"] for row in rows] == ["eel", "", "dög"]
    assert [row["probability_1"] for row in rows] == ["1.0", "", "1.0"]
    assert [bool(row["problem"]) for row in rows] == [False, True, False]


def test_what_is_done_when_the_server_goes_is_kept(server, tmp_path, capsys):
    write(tmp_path, a=b"2", b=b"1")
    server.answer = lambda images: by_first_byte(images) if images == [b"2"] else (503, {"error": "bye"})
    output = tmp_path / "predictions.csv"
    command_line = [f"--url={server.url}", "--model=lws", f"--images={tmp_path}", f"--output={output}"]
    with pytest.raises(SystemExit, match="Error: HTTP 503: bye"):
        client.main([*command_line, "--batch_size=1", "--workers=1", "--retries=0"])
    assert "a.png" in capsys.readouterr().out
    assert len(output.read_text("utf-8").splitlines()) == 2


def test_the_client_is_one_file(server, tmp_path):
    write(tmp_path, a=b"1")
    command = [sys.executable, KIT / "client.py", f"--url={server.url}", "--model=lws", "--images", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "a.png" in done.stdout
