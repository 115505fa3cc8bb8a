"""`data generate`: asks for what is not answered yet, then keeps what holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haloforge.config import Settings
from haloforge.data.generate.answers import Answers
from haloforge.data.generate.asking import Asked, ask
from haloforge.data.generate.backends import Backend, backends, find_backend
from haloforge.data.generate.cost import Cost, expected
from haloforge.data.generate.keeping import WRITING, Judging, Kept, Wanted, keep
from haloforge.data.generate.settings import ASKING
from haloforge.data.generate.slots import WORDING, messages
from haloforge.data.generate.topic import Topic, find_topic, topics
from haloforge.data.lines import Purpose
from haloforge.data.problems import parse_problem
from haloforge.data.sidecar import wrote
from haloforge.data.validate.fix import rejected_path
from haloforge.errors import InputError
from haloforge.preflight import check_problems
from haloforge.report.progress import Report
from haloforge.store.run import identity_of, open_run, set_aside
from haloforge.verify.references import reference_settings


@dataclass(frozen=True)
class Plan:
    """What is asked for, of whom, and where it goes. `folder` holds what was answered."""

    topic: Topic
    backend: Backend
    settings: Settings
    output: Path
    count: int
    purpose: Purpose

    @property
    def folder(self) -> Path:
        return self.output.with_name(f"{self.output.name}.answers")

    @property
    def wanted(self) -> Wanted:
        model = self.backend.model
        return Wanted(
            self.topic,
            model,
            self.backend.url,
            self.settings.seed,
            self.count,
            self.purpose,
            self.settings.generate.similar,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the answers. Not how many: with more, those that are there are not asked for
        again."""
        return {
            "topic": self.topic.name,
            "topic_digest": self.topic.digest,
            "model": self.backend.model,
            "seed": self.settings.seed,
            "wording": WORDING,
            "generate": identity_of(self.settings.generate, ASKING),
        }


def plan(
    topic: str,
    backend: str,
    output: Path,
    settings: Settings,
    model: str | None = None,
    count: int | None = None,
    purpose: Purpose = "sft",
    fresh: bool = False,
) -> Plan:
    """Raises InputError for what is wrong with any of these, and where `output` is a file that this
    command did not write."""
    found = find_backend(backend, model)
    planned = Plan(find_topic(topic), found, settings, output, count or found.count, purpose)
    for path in (output, rejected_path(output)):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file to write")
        if path.exists() and not fresh and not (planned.folder / WRITING).exists():
            _check_ours(path, planned)
    return planned


def _check_ours(path: Path, planned: Plan) -> None:
    if not wrote(path, planned.wanted.origin, "topic"):
        raise InputError(
            f"{path}: is there, and was not written by this command as it stands; choose another "
            "name"
        )


def requests_left(planned: Plan, answers: Answers | None) -> int:
    """How many of the slots are not answered."""
    known = answers if answers is not None else ()
    return sum(slot.request not in known for slot in planned.wanted.slots())


def cost_of(planned: Plan, answers: Answers | None) -> Cost:
    """What is left to ask may cost."""
    first = next(planned.wanted.slots())
    return expected(
        planned.backend,
        messages(planned.topic, first),
        requests_left(planned, answers),
        planned.topic.answer_tokens,
        answers,
    )


def dry_run(planned: Plan, fresh: bool) -> Cost:
    """What it would cost; nothing is made, and nobody is asked."""
    if fresh or not planned.folder.exists():
        return cost_of(planned, None)
    with open_answers(planned) as answers:
        return cost_of(planned, answers)


def open_answers(planned: Plan, fresh: bool = False) -> Answers:
    """The answers that are there; the folder is this process's until it ends. Raises InputError
    where they are of other choices, or another process is at work there."""
    open_run(planned.folder, planned.identity, fresh)
    if fresh:
        for path in (planned.output, rejected_path(planned.output)):
            if path.exists():
                set_aside(path)
    return Answers(planned.folder)


def check_able(planned: Plan) -> None:
    """Raises InputError for a key or a compiler that is missing, before anything is paid for."""
    planned.backend.api_key()
    verify = reference_settings(planned.settings.verify)
    row = {"prompt": "-", "language": planned.topic.language}
    settings = planned.settings.model_copy(update={"verify": verify})
    check_problems(settings, [parse_problem(row, "-")])


def generate(
    planned: Plan, answers: Answers, report: Report, judging: Judging
) -> tuple[Asked, Kept]:
    """Asks for what is not answered, and writes what holds. Nothing is judged, and nothing that it
    takes is started, before all is answered."""
    wanted = planned.wanted
    left = requests_left(planned, answers)
    asked = Asked()
    if answers.spoilt:
        report.say(f"{answers.path}: {answers.spoilt} answers cannot be read; asked for again")
    if left:
        requests = (
            (slot.request, messages(planned.topic, slot))
            for slot in wanted.slots()
            if slot.request not in answers
        )
        with report.stage("data: asking", planned.count, "answers") as stage:
            stage.already(planned.count - left, "there already")
            asked = ask(planned.backend, planned.settings.generate, requests, answers, stage)
    return asked, keep(wanted, answers, planned.output, judging)


def listing() -> list[dict[str, Any]]:
    """What is known by name, to be shown: topics, then backends."""
    rows: list[dict[str, Any]] = [
        {
            "topic": topic.name,
            "about": topic.about,
            "language": topic.language,
            "judge": topic.judge,
            "categories": ", ".join(topic.categories),
            "levels": ", ".join(topic.levels),
        }
        for topic in topics().values()
    ]
    for name, backend in backends().items():
        price = backend.price
        rows.append(
            {
                "backend": name,
                "url": backend.url,
                "key": (backend.key or "none") + (", where it wants one" if backend.open else ""),
                "model": backend.model or "the first that it lists",
                "count": backend.count,
                "USD a million tokens": f"{price.input:g} read, {price.output:g} written"
                if price
                else "not known",
                "price from": backend.priced,
            }
        )
    return rows
