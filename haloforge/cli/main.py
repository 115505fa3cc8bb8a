"""The `halo-forge` command."""

import os
import sys
import warnings

import click

from haloforge import __version__
from haloforge.cli.benchmark import benchmark_group
from haloforge.cli.data import data_group
from haloforge.cli.doctor import doctor_command
from haloforge.cli.model import model_group
from haloforge.cli.pipeline import pipeline_command
from haloforge.cli.plan import plan_command
from haloforge.cli.raft import raft_group
from haloforge.cli.report import report_command
from haloforge.cli.serve import serve_command
from haloforge.cli.sft import sft_group
from haloforge.cli.study import study_command
from haloforge.cli.submit import submit_command
from haloforge.cli.verify import verify_command
from haloforge.cli.view import samples_command, view_command
from haloforge.errors import HaloforgeError, InfraError, InputError, ResourceError

EPILOG = (
    "Try it: halo-forge pipeline --config jobs/demo.yaml runs the whole path on the bundled model. "
    "Every setting is reached with --config FILE (YAML) or --set room.key=value."
)


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="halo-forge")
def cli() -> None:
    """Makes a code model better with the compiler and the tests as its teacher."""


for command in (
    data_group,
    sft_group,
    raft_group,
    benchmark_group,
    model_group,
    doctor_command,
    pipeline_command,
    plan_command,
    report_command,
    samples_command,
    serve_command,
    study_command,
    submit_command,
    verify_command,
    view_command,
):
    cli.add_command(command)


def main() -> None:
    """Runs the command line; expected failures are one line and an exit code that is not 0."""
    _quiet_libraries()
    try:
        cli(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("halo-forge: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        failure = _failure(error)
        if failure is None:
            _tell_of_logs(ours=True)
            raise
        print(f"halo-forge: error: {failure}", file=sys.stderr)
        _tell_of_logs(ours=not isinstance(failure, InputError))
        sys.exit(failure.exit_code)


def _failure(error: Exception) -> HaloforgeError | None:
    """What is told of `error` in one line; None for what nobody expected.

    Ray's errors come first: one that carries an error of a task is of that error's class too.
    """
    ray = sys.modules.get("ray.exceptions")  # slow to import, and where it was not it raised none
    if ray is not None and isinstance(error, ray.RayError):
        cause = getattr(error, "cause", None)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return cause if isinstance(cause, HaloforgeError) else InfraError(lines[-1].strip())
    if isinstance(error, HaloforgeError):
        return error
    if isinstance(error, OSError):
        lines = str(error.strerror or error).strip().splitlines() or [type(error).__name__]
        return ResourceError(f"{error.filename}: {lines[0]}" if error.filename else lines[0])
    return None


def _tell_of_logs(ours: bool) -> None:
    """Where the run that failed was logged, with the last warnings and errors in there, and where
    Ray logged, unless the failure is not `ours` but the user's."""
    log = sys.modules.get("haloforge.observe.log")  # where it was not imported no run began
    known = log.attached() if log is not None else None
    if known is not None and known.path is not None and known.path.exists():
        for number, line in enumerate(known.last()):
            if not number:
                print("its last warnings and errors:", file=sys.stderr)
            print(f"  {line}", file=sys.stderr)
        print(f"log: {known.path}", file=sys.stderr)
    session = sys.modules.get("haloforge.session")
    if ours and session is not None and (folder := session.ray_logs()) is not None:
        print(f"logs of Ray and of the engines: {folder}", file=sys.stderr)


def _quiet_libraries() -> None:
    """Keeps the chatter of libraries off the terminal; their logs go to Ray's files."""
    defaults = {
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not sys.stderr.isatty():
        defaults["TQDM_DISABLE"] = "1"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore", FutureWarning)  # of libraries about each other
