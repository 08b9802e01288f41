"""Sends images to a model behind TensorFlow Serving and prints what it takes them for.

    python -m tools.serving.client --url=http://localhost:8501 --model=lws --images photos/ --output=predictions.csv

Needs nothing but Python and runs as a single file: `python client.py ...`.
"""

import argparse
import base64
import concurrent.futures
import contextlib
import csv
import dataclasses
import http.client
import json
import math
import pathlib
import sys
import textwrap
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

FORMATS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
TOP = 3  # labels shown of each image
REQUEST_BYTES = 16 << 20  # of images in one request; a larger image goes alone
PASSING = (None, 429, 502, 503, 504)  # HTTP statuses that time may heal; None is no answer at all
REFUSED = (400, 413)  # those that say that something in the request is wrong: an image, or too many
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts
REASON_WIDTH = 120  # characters of what a server says that are shown


class ServerError(Exception):
    """An HTTP status that is no success, or None where there was no answer."""

    def __init__(self, status: int | None, reason: str):
        super().__init__(reason if status is None else f"HTTP {status}: {reason}")
        self.status = status


class Prediction(NamedTuple):
    """What an image was taken for: (label, probability), likeliest first; or the problem with it."""

    file: pathlib.Path
    ranked: Sequence[tuple[str, float]] = ()
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of a TensorFlow Serving server, by its REST API.

    Attributes:
      url: of the server, such as http://localhost:8501.
      timeout: seconds to wait for an answer.
      retries: further attempts where there is no answer or the server is busy, each after twice the pause.
      report: called with a line on every failed attempt, and on what is waited for.
    """

    url: str
    name: str
    timeout: float = 60.0
    retries: int = 5
    report: Callable[[str], None] = print

    def wait(self, seconds: float) -> str:
        """Waits for the model to be loaded; returns its newest version.

        Raises:
          ServerError: the server has no such model, or has not loaded it in time.
          ValueError: it cannot load it.
        """
        end, reported = time.monotonic() + seconds, ""
        while True:
            try:
                versions = self._exchange("", "model_version_status")
                ready = [version["version"] for version in versions if version["state"] == "AVAILABLE"]
                if ready:
                    return max(ready, key=int)
                failed = [version["status"] for version in versions if version["status"]["error_code"] != "OK"]
                if failed:
                    raise ValueError(f"The server cannot load {self.name}: {failed[0]['error_message']}")
                state = f"{self.name} is {versions[0]['state']}"
            except ServerError as error:
                if error.status not in PASSING:
                    raise
                state = str(error)
            if time.monotonic() + FIRST_PAUSE > end:
                raise ServerError(None, f"not ready after {seconds:g} s: {state}")
            if state != reported:
                self.report(f"Waiting: {state}")
                reported = state
            time.sleep(FIRST_PAUSE)

    def predict(self, images: Sequence[bytes]) -> list[dict]:
        """The model's outputs for encoded images, a row each.

        Raises:
          ServerError: the server refuses the request, or did not answer at the last attempt either.
        """
        rows = [{"image_bytes": {"b64": base64.b64encode(image).decode("ascii")}} for image in images]
        request = ":predict", "predictions", json.dumps({"instances": rows}).encode("ascii")
        for attempt in range(self.retries):
            try:
                return self._exchange(*request)
            except ServerError as error:
                if error.status not in PASSING:
                    raise
                pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
                self.report(f"{error}; again in {pause:g} s")
            time.sleep(pause)
        return self._exchange(*request)

    def _exchange(self, verb: str, key: str, body: bytes | None = None):
        """What stands under a key of the answer; Python's JSON also reads the NaN that TensorFlow Serving writes."""
        url = f"{self.url.rstrip('/')}/v1/models/{urllib.parse.quote(self.name)}{verb}"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return json.load(response)[key]
        except urllib.error.HTTPError as error:
            raise ServerError(error.code, _reason(error)) from error
        except TimeoutError as error:
            raise ServerError(None, f"no answer from {url} within {self.timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(None, f"no answer from {url}: {getattr(error, 'reason', error)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{url} must be TensorFlow Serving's. Received: an answer without {key}") from error


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server says, JSON or not, on one line."""
    text = error.read().decode("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["error"]
    return textwrap.shorten(text or error.reason, REASON_WIDTH, placeholder=" ...")


def find_images(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Files as they are named, and what lies in folders, however deep, and is an image by its name.

    Raises:
      ValueError: there is no such file or folder, or no image.
    """
    files = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in FORMATS and file.is_file())
        elif path.is_file():
            files.append(path)
        else:
            raise ValueError(f"--images must be files or folders. Received: {path}, which does not exist")
    if not files:
        raise ValueError(f"--images must hold {', '.join(FORMATS)}. Received: {', '.join(map(str, paths))} without any")
    return files


def batches(
    files: Sequence[pathlib.Path], *, batch_size: int, request_bytes: int = REQUEST_BYTES
) -> Iterator[list[pathlib.Path]]:
    """The files in their order, as many at a time as a request may hold."""
    batch, held = [], 0
    for file in files:
        size = file.stat().st_size
        if batch and (len(batch) == batch_size or held + size > request_bytes):
            yield batch
            batch, held = [], 0
        batch.append(file)
        held += size
    if batch:
        yield batch


def classify(model: Model, files: Sequence[pathlib.Path]) -> list[Prediction]:
    """The predictions for one batch of files, in their order.

    Raises:
      ServerError: there is no answer, or a refusal that is about no image.
      ValueError: the model is none of keras_lt's.
    """
    images, predictions = [], {}
    for file in files:
        try:
            images.append((file, file.read_bytes()))
        except OSError as error:
            predictions[file] = Prediction(file, problem=f"not read: {error.strerror}")
    if images:
        predictions |= {prediction.file: prediction for prediction in _predict(model, images)}
    return [predictions[file] for file in files]


def _predict(model: Model, images: Sequence[tuple[pathlib.Path, bytes]]) -> Iterator[Prediction]:
    """Sends images; where they are refused, each half by itself, down to the image that is to blame."""
    try:
        rows = model.predict([encoded for _, encoded in images])
    except ServerError as error:
        if error.status not in REFUSED:
            raise
        middle = len(images) // 2
        if middle:
            yield from _predict(model, images[:middle])
            yield from _predict(model, images[middle:])
        else:
            yield Prediction(images[0][0], problem=f"refused: {error}")
    else:
        for (file, _), row in zip(images, rows, strict=True):
            yield _prediction(file, row)


def _prediction(file: pathlib.Path, row: dict) -> Prediction:
    try:
        probabilities, labels = row["probabilities"], row["classes"]
    except (KeyError, TypeError) as error:
        raise ValueError("--model must give probabilities and classes, as those of keras_lt do") from error
    if not row.get("ok", True):
        return Prediction(file, problem="no image that the model can decode")
    if any(map(math.isnan, probabilities)):
        return Prediction(file, problem="the model's answer is not a number")
    return Prediction(file, sorted(zip(labels, probabilities, strict=True), key=lambda pair: -pair[1]))


def classify_all(
    model: Model, files: Sequence[pathlib.Path], *, batch_size: int, workers: int
) -> Iterator[list[Prediction]]:
    """The predictions in the order of the files, batch by batch, with several requests under way at once."""
    executor = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        yield from executor.map(lambda batch: classify(model, batch), batches(files, batch_size=batch_size))
    finally:
        executor.shutdown(cancel_futures=True)


def table(predictions: Sequence[Prediction]) -> str:
    """A line per image: file, label, probability, and the likeliest labels or the problem."""
    lines = [("file", "label", "probability", f"top {TOP}")]
    for file, ranked, problem in predictions:
        label, probability = ranked[0] if ranked else ("-", math.nan)
        likeliest = ", ".join(f"{name} {share:.3f}" for name, share in ranked[:TOP])
        lines.append((str(file), label, f"{probability:.3f}" if ranked else "-", problem or likeliest))
    file_width, label_width = (max(len(line[column]) for line in lines) for column in (0, 1))
    return "\n".join(
        f"{file:<{file_width}}  {label:<{label_width}}  {probability:>11}  {rest}"
        for file, label, probability, rest in lines
    )


@contextlib.contextmanager
def csv_writer(path: pathlib.Path | None) -> Iterator[Callable[[Sequence[Prediction]], None]]:
    """A function that adds predictions to a CSV file; without a path it does nothing."""
    if path is None:
        yield lambda predictions: None
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        columns = [f"{name}_{rank + 1}" for rank in range(TOP) for name in ("label", "probability")]
        writer = csv.DictWriter(file, ["file", *columns, "problem"])
        writer.writeheader()

        def write(predictions: Sequence[Prediction]) -> None:
            for image, ranked, problem in predictions:
                likeliest = [value for pair in ranked[:TOP] for value in pair]
                writer.writerow({"file": image, "problem": problem} | dict(zip(columns, likeliest, strict=False)))
            file.flush()

        yield write


def say(line: str, *, passing: bool = False) -> None:
    """Writes beside the table, to standard error; a passing line is for terminals alone, and the next one covers it."""
    terminal = sys.stderr.isatty()
    if terminal or not passing:
        start, end = ("\r\033[K" if terminal else ""), ("" if passing else "\n")
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {text}")
    return count


def parse(command_line: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--url", default="http://localhost:8501", help="the server's REST port")
    parser.add_argument("--model", required=True, help="its name there: the classifier's")
    parser.add_argument("--images", type=pathlib.Path, nargs="+", required=True, help="files, and folders of them")
    parser.add_argument("--output", type=pathlib.Path, help="CSV file to write")
    parser.add_argument("--batch_size", type=_count, default=32, help="images in a request, at most")
    parser.add_argument("--workers", type=_count, default=4, help="requests under way at once")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for an answer")
    parser.add_argument(
        "--retries", type=int, default=5, help="further attempts where none comes or the server is busy"
    )
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for the model to be loaded")
    arguments = parser.parse_args(command_line)
    if not arguments.url.startswith(("http://", "https://")):
        parser.error(f"--url must begin with http:// or https://. Received: {arguments.url}")
    return arguments


def main(command_line: Sequence[str] | None = None) -> None:
    """Runs the command; the exit code is 0 where every image has got a label."""
    arguments = parse(command_line)
    model = Model(arguments.url, arguments.model, timeout=arguments.timeout, retries=arguments.retries, report=say)
    sizes = {"batch_size": arguments.batch_size, "workers": arguments.workers}
    predictions, problem, done = [], "", ""
    try:
        files = find_images(arguments.images)
        say(f"{model.name}, version {model.wait(arguments.wait)}")
        start = time.monotonic()
        with csv_writer(arguments.output) as write:
            for batch in classify_all(model, files, **sizes):
                write(batch)
                predictions += batch
                rate = len(predictions) / (time.monotonic() - start)
                done = f"{len(predictions)} of {len(files)} images, {rate:.1f}/s"
                say(done, passing=True)
    except (ServerError, ValueError, OSError) as error:
        problem = f"Error: {error}"
    except KeyboardInterrupt:
        problem = "Stopped."
    unlabelled = sum(not prediction.ranked for prediction in predictions)
    if predictions:
        say(f"{done}, {unlabelled} without a label")
        print(table(predictions))
    if problem or unlabelled:
        sys.exit(problem or 1)


if __name__ == "__main__":
    main()
