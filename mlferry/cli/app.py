"""The group of commands, and how it ends: exit codes, and errors as paragraphs."""

from __future__ import annotations

import io
import logging
import shlex
import sys
from typing import Any

import click
from click.shell_completion import get_completion_class

from mlferry import limits
from mlferry.cli import convert, export, look, run as running, shrink, update, upgrade, write
from mlferry.cli.common import limits_of
from mlferry.converters.unsupported import identifier
from mlferry.errors import (
    LimitError,
    MissingCustomLayerError,
    MlferryError,
    OpenShapesError,
    UnsupportedOpError,
)
from mlferry.text import printable
from mlferry.version import VERSION

EPILOG = """\b
examples:
  mlferry examples digits && cd digits
  mlferry convert digits_stn.h5 digits.mlmodel --custom hooks.py
  mlferry inspect digits.mlmodel
  mlferry view digits.mlmodel
  mlferry quantize digits.mlmodel -o small.mlmodel --bits 8
  mlferry export digits.mlmodel digits.onnx

Every command has --help. Exit codes: 0 done, 1 an error, 2 wrong usage.
"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--limit",
    "raised",
    metavar="NAME=VALUE",
    multiple=True,
    callback=limits_of,
    help="Raise a limit for a file that you trust: weights=32GiB, seconds=600.",
)
@click.version_option(VERSION, package_name="mlferry", prog_name="mlferry")
@click.pass_context
def app(context: click.Context, debug: bool, raised: dict[str, float]) -> None:
    """Keras, ONNX and TensorFlow models to Core ML, run and checked without a Mac."""
    context.with_resource(limits.changed(**raised))


@app.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes the TAB key complete commands, options and files.

    \b
    examples:
      eval "$(mlferry completion bash)"        # in ~/.bashrc
      mlferry completion fish > ~/.config/fish/completions/mlferry.fish
    """
    completer = get_completion_class(shell)
    assert completer is not None
    click.echo(completer(app, {}, "mlferry", "_MLFERRY_COMPLETE").source())


for _command in (
    convert.convert,
    export.export,
    upgrade.upgrade,
    running.predict,
    update.update,
    shrink.quantize,
    shrink.prune,
    shrink.compare,
    look.inspect,
    look.view,
    look.validate,
    look.precision,
    look.verify,
    write.scaffold,
    write.examples,
):
    app.add_command(_command)


class Telling(logging.Formatter):
    """``mlferry: warning: ...``, yellow on a terminal; errors red."""

    def __init__(self, colored: bool) -> None:
        super().__init__("mlferry: %(message)s")
        self._colored = colored

    def format(self, record: logging.LogRecord) -> str:
        """A line of the log."""
        text = super().format(record)
        if record.levelno < logging.WARNING:
            return text
        level = record.levelname.lower()
        line = f"mlferry: {level}: {text.removeprefix('mlferry: ')}"
        if not self._colored:
            return line
        return click.style(line, fg="yellow" if level == "warning" else "red")


def run(argv: list[str]) -> int:
    """Run a command line; see `mlferry.cli.main`.

    Raises:
        MlferryError: with ``--debug``, as it was raised.
        SystemExit: of code 2 for wrong usage.
    """
    debug = "--debug" in argv
    arguments = [argument for argument in argv if argument != "--debug"]
    handler = logging.StreamHandler()
    handler.setFormatter(Telling(sys.stderr.isatty()))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])
    try:
        result: Any = app.main(arguments, prog_name="mlferry", standalone_mode=False)
    except click.Abort:
        return 130
    except click.ClickException as error:
        output = io.StringIO()
        error.show(output)
        sys.stderr.write(printable(output.getvalue(), lines=True))
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        return 130
    except MlferryError as error:
        if debug:
            raise
        sys.stderr.write(f"mlferry: {error}\n{_in_a_shell(error, arguments)}")
        return 1
    except BrokenPipeError:  # `mlferry inspect ... | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        if debug:
            raise
        sys.stderr.write(
            f"mlferry: unexpected {type(error).__name__}: {printable(str(error), lines=True)}\n"
            "This is a bug in mlferry. Please report it with the traceback that "
            "`mlferry --debug ...` shows\n"
        )
        return 1
    return result if isinstance(result, int) else 0


def _in_a_shell(error: MlferryError, arguments: list[str]) -> str:
    """What to type next in a shell, where the error shows what to write in Python."""
    if isinstance(error, UnsupportedOpError):
        pairs = ", ".join(f"{op!r}: convert_{identifier(op)}" for op in error.ops)
        return (
            "\nIn a shell: write the functions into a file, hooks.py, that begins with\n"
            f"    import mlferry\nand ends with\n    custom_conversion_functions = {{{pairs}}}\n"
            "and add --custom hooks.py; or add --add-custom-layers.\n"
        )
    if isinstance(error, OpenShapesError):
        options = (
            f"--shape {printable(shlex.quote(name))}={','.join(map(str, shape)) or '1,...'}"
            for name, shape in error.shapes.items()
        )
        return f"\nIn a shell: {' '.join(options)}; 1..512 in the place of a number for a range.\n"
    if isinstance(error, LimitError) and error.enough is not None:
        start = 0  # the last one wins
        while arguments[start] == "--limit":
            start += 2
        raised = ["--limit", f"{error.limit}={error.enough}"]
        whole = shlex.join(["mlferry", *arguments[:start], *raised, *arguments[start:]])
        return f"\nIn a shell: {whole}\n"
    if isinstance(error, MissingCustomLayerError):
        models = [word for word in arguments if word.endswith(".mlmodel")] or ["MODEL"]
        return (
            "\nIn a shell: these files are written by\n"
            f"    mlferry scaffold {shlex.quote(models[0])} --language python -o classes\n"
            "and, with evaluate filled in, found by --custom classes/NAME.py.\n"
        )
    return ""
