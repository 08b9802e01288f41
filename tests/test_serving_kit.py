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

from keras_lt import predict
from keras_lt.datasets import Split
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
    for name, content in contents.items():
        (folder / f"{name}.png").write_bytes(content)


def labels(answers):
    return [answer.get("label") for answer in answers]


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def photos(folder):
    """Five images of noise in four formats and two folders."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 14, 3), np.uint8)
    (folder / "more").mkdir(parents=True)
    for image, name in zip(pixels, ("a.jpg", "b.PNG", "c.bmp", "d.gif", "more/e.jpeg"), strict=True):
        PIL.Image.fromarray(image).save(folder / name)
    return [file.read_bytes() for file in find_images([folder])]


def test_images_get_what_the_exported_model_says_of_them(exported, server, tmp_path):
    images = photos(tmp_path / "photos")
    server.answer = of_saved_model(exported)
    answers = Model(server.url, "lws").classify(images)
    signature = tf.saved_model.load(exported).signatures["serving_default"]
    expected = signature(image_bytes=tf.constant(images))["probabilities"].numpy()
    for answer, row in zip(answers, expected, strict=True):
        ranked = row.argsort()[::-1]
        assert [answer[column] for column in ("label", "label_2", "label_3")] == [NAMES[best] for best in ranked]
        shares = [float(answer[column]) for column in ("probability", "probability_2", "probability_3")]
        np.testing.assert_allclose(shares, row[ranked], atol=1e-5)


def test_a_damaged_image_is_named_and_the_others_are_served(exported, on_bad_request, server, tmp_path):
    images = photos(tmp_path / "photos")
    images[1] = images[1][: len(images[1]) // 2]
    server.answer = of_saved_model(exported)
    answers = Model(server.url, "lws").classify(images)
    assert [label is None for label in labels(answers)] == [False, True, False, False, False]
    problem, sizes = {
        "error": ("HTTP 400: ", [5, 2, 1, 1, 3]),
        "nan": ("no image that the model can decode", [5]),
    }[on_bad_request]
    assert answers[1]["problem"].startswith(problem)
    assert server.sizes == sizes


def test_numbers_that_are_none_get_no_label(server):
    """A model that says so of no image, but whose logits have overflowed."""
    answer = b'{"predictions": [{"probabilities": [NaN, NaN], "classes": ["cat", "eel"]}]}'
    server.answer = lambda images: (200, answer)
    assert Model(server.url, "lws").classify([b"1"]) == [{"problem": "the model's answer is not a number"}]


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_batch_is_halved_down_to_the_culprit(server, status):
    server.answer = lambda images: (status if DAMAGED in images else 200, by_first_byte(images)[1])
    images = [DAMAGED if i == 5 else str(i % 3).encode() for i in range(8)]
    answers = Model(server.url, "lws").classify(images)
    assert labels(answers) == ["cat", "dög", "eel", "cat", "dög", None, "cat", "dög"]
    assert answers[5]["problem"].startswith(f'HTTP {status}: {{"error": "Unknown image file format.')
    assert server.sizes == [8, 4, 4, 2, 1, 1, 2]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_after_longer_and_longer_pauses(server, pauses, status):
    server.answer = first_failing([status] * 5)
    assert labels(Model(server.url, "lws").classify([b"1"])) == ["dög"]
    assert pauses == [1, 2, 4, 8]  # the second attempt is made at once


@pytest.mark.parametrize("status", [401, 404, 500])
def test_what_no_waiting_heals_is_not_tried_again(server, pauses, status):
    server.answer = first_failing([status])
    with pytest.raises(OSError, match=f"HTTP {status}: .*busy"):
        Model(server.url, "lws").classify([b"1"])
    assert (server.sizes, pauses) == ([1], [])


def test_patience_ends(server, pauses):
    server.answer = first_failing([503] * 9)
    with pytest.raises(OSError, match=r"HTTP 503: .*busy"):
        Model(server.url, "lws").classify([b"1"])
    assert len(server.sizes) == 6


def test_a_slow_answer_is_asked_for_again(server, monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT", 0.5)
    answered = threading.Event()

    def answer(images):
        if len(server.sizes) == 1:  # the first request
            answered.wait(10)
        return by_first_byte(images)

    server.answer = answer
    assert labels(Model(server.url, "lws").classify([b"2"])) == ["eel"]
    answered.set()
    assert server.sizes == [1, 1]


@pytest.fixture
def nobody():
    """The address of no server."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_without_a_server_every_attempt_is_made(nobody, pauses):
    with pytest.raises(OSError, match="refused"):
        Model(nobody, "lws").classify([b"1"])
    assert pauses == [1, 2, 4, 8]


@pytest.mark.parametrize(
    "answer",
    [b"<html>Welcome</html>", {"predictions": [[0.1]]}, {"outputs": []}, {"predictions": [{"scores": [1.0]}]}],
)
def test_another_kind_of_server_or_model_is_said(server, answer):
    server.answer = lambda images: (200, answer)
    with pytest.raises(ValueError, match="must be TensorFlow Serving's, of keras_lt"):
        Model(server.url, "lws").classify([b"1"])


def test_the_model_is_waited_for(server, pauses):
    server.versions = [AVAILABLE | {"state": "LOADING"}, AVAILABLE | {"state": "START"}, AVAILABLE]
    Model(server.url, "lws").wait(60)
    assert pauses == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("lsw", "AVAILABLE", "HTTP 404: .*Could not find lsw"),
        ("lws", "LOADING", "lws is not ready: .*LOADING"),
        ("lws", "END", "lws is not ready: .*no graph"),
    ],
)
def test_but_not_for_what_does_not_come(server, pauses, name, state, message):
    failed = {"error_code": "NOT_FOUND", "error_message": "no graph"}
    server.versions = [AVAILABLE | {"state": state} | ({"status": failed} if state == "END" else {})]
    with pytest.raises((OSError, ValueError), match=message):
        Model(server.url, name).wait(60 if state == "END" else 0)
    assert pauses == []


def test_nor_for_a_server_that_does_not_come(nobody, pauses):
    with pytest.raises(ValueError, match=r"not ready: .*refused"):
        Model(nobody, "lws").wait(0)


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


def test_the_command_writes_a_line_per_image(server, tmp_path):
    write(tmp_path, a=b"2", b=DAMAGED, c=b"1", **{f"d{i}": b"0" for i in range(client.BATCH)})
    output = tmp_path / "predictions.csv"
    command = [f"--url={server.url}/", "--model=lws", f"--images={tmp_path}", f"--output={output}"]
    with pytest.raises(SystemExit, match=r"1 of 11 images without a label: .*predictions\.csv"):  # exit code 1
        client.main(command)
    rows = table(output)
    assert [row["image"] for row in rows] == [str(file) for file in sorted(tmp_path.glob("*.png"))]
    assert [row["label"] for row in rows] == ["eel", "", "dög", *["cat"] * 8]
    assert [row["probability"] for row in rows] == ["1.000000", "", "1.000000", *["1.000000"] * 8]
    assert [bool(row["problem"]) for row in rows] == [False, True, *[False] * 9]
    with pytest.raises(SystemExit, match=r"File exists: .*predictions\.csv"):  # whosever it is, it is not written over
        client.main(command)
    assert table(output) == rows


def test_its_columns_are_those_of_predict(tmp_path):
    split = Split(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, int))
    predict.write_csv(tmp_path / "ours.csv", split, {}, {}, top_k=3)
    assert (tmp_path / "ours.csv").read_text().strip().split(",") == list(client.COLUMNS)


def test_what_is_done_when_the_server_goes_is_kept(server, pauses, tmp_path):
    write(tmp_path, **{f"a{i}": b"2" for i in range(client.BATCH)}, b=b"1")
    server.answer = lambda images: by_first_byte(images) if b"2" in images else (503, {"error": "bye"})
    output = tmp_path / "predictions.csv"
    with pytest.raises(SystemExit, match=r"Error: HTTP 503: .*bye"):
        client.main([f"--url={server.url}", "--model=lws", f"--images={tmp_path}", f"--output={output}"])
    assert [row["label"] for row in table(output)] == ["eel"] * client.BATCH


def test_the_client_is_one_file(server, tmp_path):
    write(tmp_path, a=b"1")
    command = [sys.executable, KIT / "client.py", f"--url={server.url}", "--model=lws", "--images", tmp_path]
    subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    assert [row["label"] for row in table(tmp_path / "predictions.csv")] == ["dög"]
