"""How a command starts and ends: quiet libraries, plain answers to mistakes, a line per part of the work."""

import argparse
import contextlib
import os
import pathlib
import re
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

from absl import app, logging

from keras_lt.files import read_text

FLAG_FILE = ("--flagfile", "-flagfile")
HELP = {"--help", "-h", "-help"}
COMMENT = ("#", "//")
BACKENDS = ("tensorflow", "jax")
LOADING_ERRORS = ImportError | ValueError | AttributeError | AssertionError  # Keras's, of a keras.json that is no good
LEAVES_AGAIN_AFTER = 2.0  # seconds
MOST_LETTERS = 4000  # of a message
_leaving = threading.Event()  # the program was asked to end


@contextlib.contextmanager
def quietly(module: str = "", answer: Callable[[], object] | None = None) -> Iterator[None]:
    """Keeps what TensorFlow's libraries write to the terminal while they load; it is shown where loading fails.

    They write from C++ before any logging level counts, so it is the file descriptor that is turned aside.

    Args:
      module: its `__name__`, in the body of which the libraries are loaded.
      answer: reads a command's arguments, and ends the program where they ask for help or are wrong, before anything
        is loaded.
    """
    if module == "__main__":
        begin_in_utf8()
        heed_signals()
    if answer and module == "__main__":
        with unread():
            answer()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryFile() as aside:
        terminal = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield
            sys.modules["tensorflow"].config.list_physical_devices()  # where there is no GPU it says so, once
            backend = sys.modules["keras"].backend.backend() if "keras" in sys.modules else BACKENDS[0]
            if module == "__main__" and backend not in BACKENDS:
                sys.exit(f"Error: commands run on KERAS_BACKEND={' or '.join(BACKENDS)}. Received: {backend}")
        except BaseException as error:
            if module == "__main__" and is_leaving(error):
                os.dup2(terminal, 2)
                stop()
            if module == "__main__" and isinstance(error, LOADING_ERRORS):
                said = f"{error}" or type(error).__name__
                sys.exit(f"Error: a library is missing or does not fit, see KERAS_BACKEND and keras.json too: {said}")
            if not isinstance(error, SystemExit | KeyboardInterrupt | LOADING_ERRORS):
                aside.seek(0)
                os.write(terminal, aside.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def open_streams():
    """Opens those standard streams that the caller closed, by `>&-` say: the next file would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Ends the program without a word, as Unix's own do, where whoever read its output has enough: `| head -1`.

    Where output is lost otherwise, as on a full disk, it ends in one line.
    """
    open_streams()
    try:
        yield
    finally:
        lost = sys.exc_info()[1]
        try:
            sys.stdout.flush()
        except OSError as error:
            lost = error
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python itself flushes once more
        gone = isinstance(lost, SystemExit) and lost.code == 1  # rich's, which has seen it first
        cause = lost
        while cause and not gone:  # without a buffer it was seen where it was printed, and may have ended in a line
            gone, cause = isinstance(cause, BrokenPipeError), cause.__context__
        if gone:
            sys.exit(128 + signal.SIGPIPE)
        if isinstance(lost, OSError):
            sys.exit(f"Error: standard output cannot be written: {lost.strerror}")


def begin_in_utf8():
    """Begins the program again in UTF-8 where the locale is of another encoding: TensorFlow names files in UTF-8."""
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def failure(message: object) -> str:
    """The line that a command ends with; of a message that repeats something endless only beginning and end."""
    text, half = str(message), MOST_LETTERS // 2
    return f"Error: {text if len(text) <= MOST_LETTERS else f'{text[:half]} [...] {text[-half:]}'}"


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """A user's mistake ends the command with its message and exit code 1, without a stack trace."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        sys.exit(failure(error))
    except Exception as error:
        if not str(error).startswith("URL fetch failure"):  # of Keras's downloads, an Exception and no more
            raise
        sys.exit(failure(f"{error}; download it elsewhere and give it by --data_dir"))


@contextlib.contextmanager
def part(title: str) -> Iterator[None]:
    """Says what is being done, and how long it took."""
    print(f"\n== {title}", flush=True)
    start = time.monotonic()
    yield
    print(f"== done in {time.monotonic() - start:.1f} s", flush=True)


class _WithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help that gives the defaults, but for what must be given or is empty."""

    def _get_help_string(self, action: argparse.Action) -> str:
        """The hook of argparse's own formatters."""
        return action.help if action.default in (None, "") else super()._get_help_string(action)


class Arguments(argparse.ArgumentParser):
    """Of a command without the flags of a run: a mistake ends it in one line, as `config.answer` ends the others."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=_WithDefaults)

    def error(self, message: str):
        """Argparse's hook, for what it would precede by its usage."""
        sys.exit(failure(f"{message}. --help lists all flags."))


def find_flag_file(path: str) -> pathlib.Path | None:
    """A flag file; one below `flags/` is the package's where there is none below the current folder. Or None."""
    here, package = pathlib.Path(os.path.expanduser(path)), pathlib.Path(__file__).parent
    places = [here]
    if here.parts[:1] == ("flags",):
        places += [package / here, package.parent / here]  # an installed package, a checkout
    return next((place for place in places if place.is_file()), None)


def with_flag_files(arguments: Sequence[str], inside: Sequence[pathlib.Path] = ()) -> list[str]:
    """The arguments with every `--flagfile` replaced by what is in it, as absl does, once `find_flag_file` finds it.

    Args:
      inside: the files whose content this is; one that names itself again is read once.
    """
    read, rest = [], iter(arguments)
    for argument in rest:
        flag, equals, name = argument.partition("=")
        if flag not in FLAG_FILE:
            read.append(argument)
            continue
        name = name if equals else next(rest, "")
        path = find_flag_file(name.strip())
        if path is None:  # nor has a variable of the shell that is not set a name: absl would train by the defaults
            raise ValueError(
                f"--flagfile must name a file; one below flags/ may be the package's. Received: {flag}={name}"
            )
        if path not in inside:
            lines = [line.strip() for line in read_text(path).splitlines()]
            flags = [line for line in lines if line and not line.startswith(COMMENT)]
            read += with_flag_files(flags, (*inside, path))
    return read


def heed_signals():
    """Lets a cluster's SIGTERM be what Ctrl-C is, where the caller has not turned that off, as for `command &`.

    Libraries pass over all that is raised while they trace a model or collect garbage, or raise something else instead:
    so both come again until the program ends, and it ends by them whatever it is that is raised.
    """
    _leaving.clear()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        if number != signal.SIGINT or signal.getsignal(number) == signal.default_int_handler:
            signal.signal(number, _leave)
    sys.unraisablehook = lambda lost: isinstance(lost.exc_value, KeyboardInterrupt) or sys.__unraisablehook__(lost)


def _leave(number, frame):
    _leaving.set()
    signal.setitimer(signal.ITIMER_REAL, LEAVES_AGAIN_AFTER)
    raise KeyboardInterrupt


def is_leaving(error: BaseException) -> bool:
    """Whether the program is ending because it was asked to."""
    return isinstance(error, KeyboardInterrupt) or _leaving.is_set()


def stop():
    """Ends the program as Ctrl-C does, with a line and the exit code that shells give it."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("\nStopped. The same command resumes from the last finished part or epoch.", file=sys.stderr)
    sys.exit(128 + signal.SIGINT)


def in_a_line(error: BaseException) -> str:
    """What can happen to anybody, in one line; empty of an error that is to show where in the program it was."""
    kind, text = type(error), str(error)
    if isinstance(error, OSError | FloatingPointError):
        return text
    if isinstance(error, MemoryError) or re.search("OOM when allocating|Out of memory while", text):
        wanted = re.search(r"(OOM when|Out of memory while|Unable to) [^\n[]+(\[[\d,]+\][^\n[]*)?", text)
        return (
            "memory is used up. A training takes less by a smaller --batch_size, or by --accumulate_steps, which "
            f"computes the same batch in parts. Received: {wanted[0].strip() if wanted else kind.__name__}"
        )
    # Of images that were there when they were examined. The node that failed stands after what it said; of an error of
    # Python's that is the last line.
    lost = re.search(r"([^\n]+)\s*\[\[\{\{node (?:ReadFile|PyFunc\w*)\}\}\]\]", text)
    if lost and "IteratorGetNext" in text and kind.__module__.startswith("tensorflow."):
        said = re.sub(r"^(\{\{.*\}\} )?(\w+Error: )?", "", lost[1].strip())
        return f"an example could not be read: {said}. Put it back: the same command goes on"
    return ""


def launch(main: Callable[[], None]):
    """Runs `main` with the flags that were read; what can happen to anybody ends it in one line."""

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal that lacks a letter is no reason to end

    def run(_):
        logging.set_verbosity(logging.WARNING)
        heed_signals()
        if any(option.startswith("error") for option in sys.warnoptions):
            warnings.simplefilter("default")  # libraries warn of one another: no reason to end a training
        try:
            main()
        except BaseException as error:
            if is_leaving(error):
                stop()
            if message := in_a_line(error):
                sys.exit(failure(message))
            raise

    with unread():
        app.run(run, argv=sys.argv[:1])  # absl's own start; the flags are as `config.answer` has read them
