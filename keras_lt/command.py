"""How a command starts and ends: quiet libraries, plain answers to mistakes, a line per part of the work."""

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from absl import app, logging


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps what TensorFlow's libraries write to the terminal while they load; it is shown where loading fails.

    They write from C++ before any logging level counts, so it is the file descriptor that is turned aside.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryFile() as aside:
        terminal = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield
            sys.modules["tensorflow"].config.list_physical_devices()  # where there is no GPU it says so, once
        except BaseException:
            aside.seek(0)
            os.write(terminal, aside.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """A user's mistake ends the command with its message and exit code 1, without a stack trace."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"Error: {error}")


@contextlib.contextmanager
def part(title: str) -> Iterator[None]:
    """Says what is being done, and how long it took."""
    print(f"\n== {title}", flush=True)
    start = time.monotonic()
    yield
    print(f"== done in {time.monotonic() - start:.1f} s", flush=True)


def launch(main: Callable[[], None], help_text: Callable[[], str]):
    """Parses the flags and runs `main`; Ctrl-C, a cluster's SIGTERM and a full disk end it in one line.

    Args:
      help_text: what --help says below the command's own words.
    """
    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        print(f"{sys.modules['__main__'].__doc__.strip()}\n\n{help_text()}", end="")
        return

    def run(arguments):
        logging.set_verbosity(logging.WARNING)
        if len(arguments) > 1:
            sys.exit(f"Error: flags are written --name=value. Received: {' '.join(arguments[1:])}")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            main()
        except (OSError, FloatingPointError) as error:
            sys.exit(f"Error: {error}")
        except KeyboardInterrupt:
            sys.exit("\nStopped. The same command goes on from the last finished part or epoch.")

    app.run(run)
