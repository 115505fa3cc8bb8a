"""What the command line of a stage means for its job: which files it reads, and where it writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from haloforge.cli.options import settings_of
from haloforge.cli.stages import STAGES, command_line, parsed
from haloforge.errors import InputError

if TYPE_CHECKING:
    from haloforge.config import Settings
    from haloforge.submit import Job

_SFT = ("model", "sft.data", "sft.validation")
_RAFT = (
    "model",
    "raft.prompts",
    "raft.checkpoint",
    "raft.exclude",
    "raft.history",
    "raft.eval_prompts",
    "benchmark.data_dir",
)
_BENCHMARK = ("model", "benchmark.prompts", "benchmark.exclude", "benchmark.data_dir")
# Settings that name what is read; those of the verifier and of DeepSpeed whatever the stage.
EVERY_STAGE_READS = ("verify.verifier", "train.deepspeed")
READS = {
    "sft": _SFT,
    "raft": _RAFT,
    "benchmark": _BENCHMARK,
    "pipeline": (*_SFT, *_RAFT, *_BENCHMARK),
}
INPUT_OPTIONS = {
    "against",
    "config",
    "copy",
    "dataset",
    "file",
    "files",
    "model",
    "models",
    "problems",
    "references",
    "results",
    "source",
}
OUTPUT_OPTIONS = ("output", "fix", "report")
# With these a command needs no output.
_ONLY_TOLD = ("dry_run", "listing", "references", "show_batch")
_BUNDLED = ("starter", "suite")


def job_of(stage: str, arguments: tuple[str, ...]) -> "tuple[Job, Settings]":
    """The job, and the settings that it will have. Raises what the stage's own command would for
    arguments that it does not take, and InputError for an output that would be lost and for an
    address with a secret in it."""
    from haloforge.submit import Job, check_secrets, named_files

    if stage not in STAGES:
        raise InputError(f"unknown stage '{stage}'; known: {', '.join(STAGES)}")
    check_secrets(arguments)
    words = tuple(command_line(stage, arguments))
    context = parsed(words)
    given = context.params
    flags = {name: value for name, value in given.items() if "__" in name}
    if stage == "pipeline":
        flags["output"] = given["output"]
    settings = settings_of(given.get("config"), given.get("assignments", ()), None, **flags)
    _check_outputs(stage, context, settings)
    if stage == "serve":
        _check_served(settings)
    return Job(stage, words, named_files(_inputs(stage, context, settings))), settings


def _inputs(stage: str, context: click.Context, settings: "Settings") -> Iterator[str]:
    """What is named on purpose: on the command line, or by settings, none of which names a file by
    default."""
    for name, value in context.params.items():
        typed = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        if typed and name in INPUT_OPTIONS:
            yield from _paths(_texts(value))
    yield from _paths(_of_entry(context.params))
    for name in (*READS.get(stage, ()), *EVERY_STAGE_READS):
        own = name == "verify.verifier"  # else a toolchain's name, whatever folder is called so
        texts = _texts(_setting(settings, name))
        yield from _paths(text for text in texts if ":" in text or not own)


def _of_entry(given: dict[str, Any]) -> Iterator[str]:
    """The rows that an entry of the user's own names, where no copy takes their place."""
    from haloforge.data.catalogue import find_entry

    dataset = given.get("dataset")
    if dataset and not given["copy"] and Path(dataset).is_file() and (entry := find_entry(dataset)):
        yield from _texts(entry.origin.path)


def _paths(texts: "Iterator[str]") -> Iterator[str]:
    """Those that are not `starter`, `starter/test` or `suite/NAME`, which come before a folder."""
    return (text for text in texts if text.partition("/")[0] not in _BUNDLED)


def _setting(settings: "Settings", name: str) -> Any:
    value: Any = settings
    for key in name.split("."):
        value = getattr(value, key)
    return value


def _check_outputs(stage: str, context: click.Context, settings: "Settings") -> None:
    """Raises InputError where what `stage` writes would be gone with its job."""
    from haloforge.submit import check_output

    given, command = context.params, context.command.name
    outputs = {name: given[name] for name in OUTPUT_OPTIONS if given.get(name) is not None}
    only_told = any(given.get(name) for name in _ONLY_TOLD)
    if command in ("run", "eval", "prepare", "verify") and not only_told:
        outputs.setdefault("output", None)
    elif stage == "pipeline":
        outputs["output"] = settings.output
    elif stage in ("sft", "raft") and not only_told:
        outputs["output"] = _setting(settings, f"{stage}.output")
    for name, value in outputs.items():
        check_output(value, f"--{name}")
    if stage in ("sft", "raft", "pipeline") and settings.train.checkpoints is not None:
        check_output(settings.train.checkpoints, "train.checkpoints")


def _check_served(settings: "Settings") -> None:
    """Raises InputError for a model here: a copy that goes along would get no new adapters."""
    for model in settings.serve.models:
        path = Path(model.partition("=")[2] or model)
        if not path.is_absolute() and path.exists():
            raise InputError(
                f"{model}: is served from where it is; give an absolute path that all nodes share"
            )


def _texts(tree: Any) -> Iterator[str]:
    """All texts and paths in a tree of settings or options."""
    if isinstance(tree, str | Path):
        yield str(tree)
    elif isinstance(tree, dict | list | tuple):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(each)
