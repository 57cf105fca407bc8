"""``scaleport``: finds the verb, runs it, and turns every error into one line and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from scaleport.cli.output import error_line, put
from scaleport.cli.stopping import EXIT_INTERRUPTED, Stopped, stoppable
from scaleport.errors import ScaleportError, UsageError
from scaleport.paths import holds

PROGRAM = "scaleport"
_COMPLETE = f"_{PROGRAM.upper()}_COMPLETE"
"""Environment variable by which a shell's completion calls the program."""

EXIT_PIPE_CLOSED = 141
EXIT_OUT_OF_MEMORY = 5
EXIT_INTERNAL = 70

EPILOG = """\b
Exit codes:
  0   done
  1   a parity or quality gate was not met
  2   wrong usage: an argument, an input or an output
  3   a backend or package is missing or cannot run here
  4   a bundle, checkpoint or graph is damaged or does not fit
  5   out of memory
  6   some of several images failed, the others were done
  70  internal error

\b
Examples:
  scaleport upscale photo.jpg
  scaleport upscale drawing.png -m scaleport-any -s 6.5
  scaleport export scaleport-s --format onnx,coreml
"""


@dataclass(frozen=True)
class Verb:
    """Where a verb is defined, and its line in the overview."""

    module: str
    function: str
    summary: str


VERBS = {
    "upscale": Verb("upscale", "upscale", "Upscale images and videos."),
    "models": Verb("models", "models", "List the models that can be named."),
    "export": Verb("export", "export", "Write a checkpoint as a bundle for every runtime."),
    "calibrate": Verb("calibrate", "calibrate", "Export with int8 graphs in a quality budget."),
    "validate": Verb("validate", "validate", "Compare a bundle's graphs with PyTorch."),
    "bisect": Verb("bisect", "bisect", "Name the first layer where a graph differs from PyTorch."),
    "inspect": Verb("inspect", "inspect", "Show the contents of a bundle or checkpoint."),
    "sign": Verb("sign", "sign", "Sign a bundle, so that others can tell it is yours."),
    "doctor": Verb("doctor", "doctor", "Show which backends can run here, and why not."),
    "web": Verb("web", "web", "Serve the demo page to browsers on this machine."),
    "serve": Verb("serve", "serve", "Serve a bundle over HTTP and gRPC on this machine."),
    "serve-config": Verb("serve_config", "serve_config", "Write a model repository for a server."),
    "bench": Verb("bench", "bench", "Measure speed and memory on every backend here."),
    "eval": Verb("evaluate", "evaluate", "Score a network on benchmark images."),
    "train": Verb("train", "train", "Train a network from a recipe."),
    "import": Verb("importer", "import_", "Convert published .pth weights to a checkpoint."),
}

OTHER_WORDS = {
    "upsample": "upscale",
    "enlarge": "upscale",
    "scale": "upscale",
    "run": "upscale",
    "predict": "upscale",
    "convert": "export",
    "quantize": "calibrate",
    "quantise": "calibrate",
    "benchmark": "bench",
    "evaluate": "eval",
    "score": "eval",
    "verify": "validate",
    "test": "validate",
    "info": "inspect",
    "show": "inspect",
    "list": "models",
    "networks": "inspect --models",
    "check": "doctor",
    "version": "--version",
}
"""What people call verbs who come from other tools."""

FLAGS_OF_EVERY_VERB = frozenset({"-q", "--quiet", "-v", "--verbose", "--json"})

# Typer brings click with it in its newer versions and depends on it in the older ones.
_CLICK_ERROR: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")


class Verbs(TyperGroup):
    """The verbs as a group whose overview imports none of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the overview."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a verb, imported now; None if there is no such verb."""
        del ctx
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module = import_module(f"scaleport.cli.{verb.module}")
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(cmd_name, epilog=getattr(module, "EXAMPLES", None))(
            getattr(module, verb.function)
        )
        command: Any = get_command(app)
        command.name = cmd_name
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                # Newer versions of Typer write its Python type behind its name.
                parameter.display_type_rich = lambda ctx: ""
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that was given; an unknown one is answered with the nearest."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise UsageError(_unknown_verb(args))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the overview."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])


def _unknown_verb(args: Sequence[str]) -> str:
    """What to say of a word that is no verb."""
    word = args[0]
    if holds(Path(word).exists) or "." in word or "/" in word:
        return (
            f"{word} is not a verb; to upscale it: scaleport upscale {' '.join(map(quote, args))}; "
            "see scaleport --help"
        )
    meant = OTHER_WORDS.get(word.lower()) or next(
        iter(get_close_matches(word.lower(), VERBS, 1, 0.6)), ""
    )
    hint = f" (did you mean scaleport {meant}?)" if meant else ""
    return f"there is no verb {word}{hint}; the verbs are {', '.join(VERBS)}"


def arranged(args: Sequence[str]) -> list[str]:
    """Arguments as the verbs take them.

    What every verb takes may stand before the verb, too, and ``help VERB`` is ``VERB --help``.
    """
    rest = list(args)
    flags = []
    while rest and rest[0] in FLAGS_OF_EVERY_VERB:
        flags.append(rest.pop(0))
    if rest and rest[0] == "help":
        return [*rest[1:2], "--help"]
    return [*rest[:1], *flags, *rest[1:]] if rest and not rest[0].startswith("-") else rest or flags


app = typer.Typer(
    cls=Verbs,
    rich_markup_mode=None,
    epilog=EPILOG,
    subcommand_metavar="VERB [ARGUMENTS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    """Arbitrary-scale super-resolution: one checkpoint, every scale, every runtime.

    Every verb takes --json (only the result, on stdout), -q and -v, before or after the verb. For
    details: scaleport VERB --help.
    """
    if version:
        from scaleport import __version__

        put(f"{PROGRAM} {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        put(ctx.get_help())
        raise typer.Exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; those of the process when left out.

    Returns:
        The exit code.
    """
    if _COMPLETE in os.environ:  # a shell asks what it may offer
        get_command(app).main(prog_name=PROGRAM)
    args = arranged(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    verbose = not {"-v", "--verbose"}.isdisjoint(args)
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold what the terminal's encoding does not.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable():
            code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_stdout()
        return EXIT_PIPE_CLOSED
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except Stopped as stopped:
        return stopped.exit_code
    except Exception as error:
        if verbose and not isinstance(error, _CLICK_ERROR):
            traceback.print_exc()
        line, code = describe(error, args)
        put(line, err=True)
    return code


def _run(args: list[str]) -> int:
    command = get_command(app)
    try:
        with command.make_context(PROGRAM, args) as context:
            command.invoke(context)
    except typer.Exit as finished:
        return finished.exit_code
    return 0


def describe(error: BaseException, args: Sequence[str] = ()) -> tuple[str, int]:
    """The line to print about an error of a command line, and the exit code."""
    if isinstance(error, ScaleportError):
        return error_line(str(error)), error.exit_code
    if isinstance(error, _CLICK_ERROR):
        usage: Any = error
        verb = f" {args[0]}" if args and args[0] in VERBS else ""
        where = usage.ctx.command_path if usage.ctx else f"{PROGRAM}{verb}"
        return error_line(f"{usage.format_message().rstrip('.')}; see {where} --help"), 2
    if isinstance(error, MemoryError):
        return error_line("out of memory; smaller tiles need less"), EXIT_OUT_OF_MEMORY
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return error_line(
        f"internal error, {said}; please report it with what the same command prints with -v"
    ), EXIT_INTERNAL


def _open_closed_streams() -> None:
    """Have somewhere to write where a caller closed stdout or stderr (``>&-``).

    Their numbers must not be given to the next file that is opened: what is printed would end up
    in it.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_WRONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def _close_stdout() -> None:
    # The interpreter flushes stdout once more when it ends, and would complain.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
