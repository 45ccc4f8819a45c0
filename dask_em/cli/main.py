"""The program `dask-em`, also `dask em`: words become jobs, errors one line and an exit code."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import click

from ..errors import DaskEMError, ExitCode, UsageError
from ..foreign import LONGEST_MESSAGE, shell_words, shown
from ..version import __version__
from .apply import adapt, impute, predict, score, update
from .compare import compare
from .data import doctor, plan
from .demo import demo
from .display import AS_JSON, show_failure
from .export import export
from .fit import fit
from .ingest import ingest
from .logs import log_as, show_warning
from .model import inspect, report
from .options import COMMAND, REMOTE
from .words import in_shell


class Program(click.Group):
    """A command group that turns errors into one line and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the program and end it, by an interrupt that no command saw as by one that it did.

        It may come before the command begins, or when it is done.
        """
        run = partial(super().main, args, prog_name, complete_var, False, **extra)
        if not standalone_mode:
            return run()
        try:
            code: object = run()
        except click.ClickException as e:
            e.show()
            sys.exit(e.exit_code)
        except click.Abort:
            again = sys.argv[1:] if args is None else args
            click.echo("Error: interrupted: run the command again", err=True)
            click.echo(shell_words(["dask-em", *again]), err=True)
            sys.exit(ExitCode.STOPPED)
        sys.exit(code if isinstance(code, int) else 0)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the command line; an interrupt meanwhile ends the program as one of a command."""
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:
            line = "Error: interrupted; nothing was written: run the command again"
            click.echo(line, err=True)
            raise click.exceptions.Exit(ExitCode.STOPPED) from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the command line, for whoever is to run it again."""
        again = [arg for arg in args if arg != "--no-resume"]
        ctx.meta[COMMAND] = shell_words([*ctx.command_path.split(), *again])
        # Known before the command, which may be wrong, is parsed.
        ctx.meta[AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see the exit codes in the help of the program."""
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except click.ClickException as e:
            # It repeats words of the command line.
            vars(e)["message"] = shown(e.message, LONGEST_MESSAGE)
            show_failure(ctx, UsageError.code, e.exit_code, e.format_message())
            raise
        except DaskEMError as e:
            _fail(ctx, _with_notes(str(e), e), e.exit_code, e.code)
        except (KeyboardInterrupt, click.Abort) as e:
            # Whoever keeps unfinished work says so in a note.
            kept = "; ".join(_notes(e)) or "nothing was written: run the command again"
            _fail(ctx, f"interrupted; {kept}", ExitCode.STOPPED, "interrupted")
        except Exception as e:
            # Some errors of a lost cluster are OSErrors too.
            if type(e).__module__.partition(".")[0] == "distributed":
                lost = f"the cluster was lost: {type(e).__name__}: {e}"
                _fail(ctx, _with_notes(lost, e), ExitCode.STOPPED, "cluster-lost")
            if isinstance(e, OSError):
                failed = _with_notes(f"{type(e).__name__}: {e}", e)
                _fail(ctx, failed, ExitCode.DISK_FAILED, "disk-failed")
            if isinstance(e, MemoryError):
                what = f"this process ran out of memory ({e}): run it where there is more"
                _fail(ctx, _with_notes(what, e), ExitCode.STOPPED, "out-of-memory")
            for line in traceback.format_exc().splitlines():
                click.echo(shown(line, LONGEST_MESSAGE), err=True)
            fault = f"this is a fault of dask-em {__version__}: {e!r}"
            _fail(ctx, fault, ExitCode.FAULT, DaskEMError.code)


def _notes(e: BaseException) -> list[str]:
    return list(getattr(e, "__notes__", ()))


def _with_notes(message: str, e: BaseException) -> str:
    return "; ".join([message, *_notes(e)])


def _fail(ctx: click.Context, message: str, exit_code: ExitCode, code: str) -> None:
    message = in_shell(message, main.commands[ctx.invoked_subcommand or ""])
    message = shown(message, LONGEST_MESSAGE)
    show_failure(ctx, code, exit_code, message)
    if ctx.meta.get(REMOTE):
        # Apart from what workers may have logged here.
        click.echo(err=True)
    click.echo(f"Error: {message}", err=True)
    if exit_code == ExitCode.STOPPED:
        # The last line is what goes on with the work.
        click.echo(ctx.meta[COMMAND], err=True)
    ctx.exit(exit_code)


HELP = f"""Cluster data larger than memory: Gaussian mixtures by EM over Zarr, on Dask.

Begin with `dask-em demo`.

Exit codes: {"; ".join(f"{code:d} {code.meaning}" for code in ExitCode)}.
"""


SETTINGS = {"show_default": True, "help_option_names": ["-h", "--help"]}


@click.group(name="em", cls=Program, help=HELP, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="dask-em")
def main() -> None:
    """Run the program `dask-em`."""
    log_as(logging.Formatter("%(asctime)s %(message)s"))
    warnings.showwarning = show_warning


for command in (
    *(adapt, compare, demo, doctor, export, fit, impute, ingest, inspect, plan, predict, report),
    *(score, update),
):
    main.add_command(command)


def program() -> None:
    """Run the command line as a process of its own, and end it."""
    try:
        main()
    except SystemExit as e:
        if isinstance(e.code, int):
            leave(e.code)
        raise


def leave(code: int) -> NoReturn:
    """End the process without freeing object by object what it holds.

    That takes a second, as long as to fit a million rows. What is to be done at the end is done,
    and where threads still work, or nobody reads what was printed, the interpreter ends as ever.
    """
    here = threading.current_thread()
    if any(one is not here and not one.daemon for one in threading.enumerate()):
        sys.exit(code)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(code)
    os._exit(code)
