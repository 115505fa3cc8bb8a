"""The pages, as HTML without a script. All that a file holds is text here, whatever it says."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from haloforge.errors import HaloforgeError, InfraError
from haloforge.report.hostile import clipped, decoded, first_line, telling_line, visible
from haloforge.schema import Outcome
from haloforge.verify.extract import extract, last_block
from haloforge.view.asked import Problems
from haloforge.view.asking import (
    Named,
    Query,
    filter_of,
    list_url,
    named_of,
    number,
    page_of,
    raw_url,
    sample_url,
    with_outcome,
)
from haloforge.view.code import code_of, excerpt, shown
from haloforge.view.columns import NOT_KEPT
from haloforge.view.filters import Filter, Finder, cycles_of, kinds_of
from haloforge.view.index import Index, Table
from haloforge.view.lineage import lineage
from haloforge.view.rows import Whole, answers_of, diagnostics_of, latest, row_of_id, whole_rows
from haloforge.view.side import Column, columns_of
from haloforge.view.sources import find_sources

PAGE_ROWS = 50
_NONE = "\N{EN DASH}"
_NAME, _SAID, _BESIDE, _LOOKED_AT = 120, 200, 4_000, 20_000
_ORDERS = {
    "commits": "as they came",
    "-reward": "highest reward",
    "reward": "lowest reward",
    "-tokens": "most tokens",
    "tokens": "fewest tokens",
}
_RAW = {"answer": "completion", "diagnostics": "diagnostics"}


class NotFoundError(HaloforgeError):
    """There is no such page, or no such sample."""


class Pages:
    """Makes pages of the run in the folder `run`. Each reads what it shows when it is asked for."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._index = Index(run)
        self._finder = Finder()
        self._problems = Problems(run)
        folder = files("haloforge.view") / "page"
        self._templates = jinja2.Environment(
            loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=_seen,
        )

    def check(self) -> None:
        """Raises InputError where the folder is none of a run."""
        find_sources(self._run)

    def ready(self) -> None:
        """Reads the columns of all samples, which the first page else waits for."""
        self._index.table()

    def list_page(self, query: Query) -> str:
        """A page of what is asked for. Raises InputError for what nothing is called."""
        wanted, page = filter_of(query), page_of(query)
        return latest(self._index, lambda table: self._list(table, wanted, page))

    def sample_page(self, query: Query) -> str:
        """All of one sample. Raises NotFoundError where there is none."""
        wanted, named = filter_of(query), named_of(query)
        return latest(self._index, lambda table: self._sample(table, wanted, named))

    def raw(self, query: Query) -> bytes:
        """The bytes of a text as they are stored. Raises NotFoundError where there is none."""
        named, what = named_of(query), query.get("what") or ""
        if what not in _RAW:
            raise NotFoundError("no such text")

        def read(table: Table) -> bytes:
            whole = self._whole(table, named)
            if _RAW[what] in whole.faults:  # an empty file would say that nothing is stored
                raise InfraError(whole.faults[_RAW[what]])
            return whole.raw[_RAW[what]]

        return latest(self._index, read)

    def address_of(self, sample_id: str) -> str:
        """The address of the sample with this id. Raises NotFoundError where there is none."""

        def find(table: Table) -> str:
            row = row_of_id(table, sample_id)
            if row is None:
                raise NotFoundError(f"no sample has the id '{clipped(sample_id, _NAME)[0]}'")
            return sample_url(_named(table, row))

        return latest(self._index, find)

    def told(self, title: str, message: str, home: bool = True) -> str:
        """A page that says one thing; it tells nothing of the run where it is no way `home`."""
        run = self._run.resolve().name if home else "samples"
        return self._page("told", [], run=run, title=title, message=message, home=home)

    def _page(self, name: str, faults: Sequence[str], **values: Any) -> str:
        values = {"run": self._run.resolve().name, **values}
        return self._templates.get_template(f"{name}.html.j2").render(faults=faults, **values)

    def _list(self, table: Table, wanted: Filter, page: int) -> str:
        found = self._finder.find(table, wanted)
        pages = max(1, -(-len(found.rows) // PAGE_ROWS))
        page = min(page, pages)
        first = (page - 1) * PAGE_ROWS
        rows = found.rows[first : first + PAGE_ROWS].tolist()
        return self._page(
            "list",
            table.faults,
            asked=wanted,
            cycles=cycles_of(table),
            kinds=kinds_of(table),
            outcomes=[*Outcome],
            sorts=_ORDERS,
            number=number,
            shares=_shares(found.outcomes, wanted),
            total=len(found.rows),
            all=len(table),
            first=first + 1,
            last=first + len(rows),
            rows=_listed(table, rows, wanted),
            page=page,
            pages=pages,
            page_url=lambda number: list_url(wanted, number),
        )

    def _whole(self, table: Table, named: Named | None) -> Whole:
        row = table.find(*named) if named else None
        if row is None:
            raise NotFoundError("no such sample in this run")
        return whole_rows(table, [row])[0]

    def _sample(self, table: Table, wanted: Filter, named: Named | None) -> str:
        whole = self._whole(table, named)
        row, source = whole.row, table.source(whole.row)
        named = _named(table, row)
        asked = self._problems.find(source, named.problem)
        code = code_of(whole.sample["completion"], asked, self._problems.verifier(source))
        columns, left_out = columns_of(table, named.problem, source)
        verdict, sample = whole.verdict, whole.sample
        return self._page(
            "sample",
            [*table.faults, *whole.faults.values()],
            problem=clipped(named.problem, _NAME)[0],
            index=named.number,
            source=source.title,
            outcome=verdict["outcome"],
            reward=_reward(verdict["reward"]),
            tests=_tests(verdict["tests_passed"], verdict["tests_total"]),
            tokens=sample["num_tokens"],
            kept=_kept(int(table.columns["rank"][row])),
            damaged=whole.damaged,
            language=code.language if code else None,
            code=shown(code.code, code.language) if code else None,
            diagnostics=shown(verdict["diagnostics"].rstrip("\n")),
            answer=shown(sample["completion"]),
            prompt=shown(asked.prompt) if asked.prompt is not None else None,
            why_not=asked.why_not,
            raw_answer=raw_url(named, "answer"),
            raw_diagnostics=raw_url(named, "diagnostics"),
            steps=lineage(self._run, table, whole),
            facts=_facts(whole, asked.language, asked.difficulty, asked.judge, asked.source),
            others=[self._beside(table, column, row) for column in columns],
            left_out_columns=left_out,
            problem_url=list_url(Filter(problem=named.problem)),
            **self._around(table, wanted, row),
        )

    def _around(self, table: Table, wanted: Filter, row: int) -> dict[str, Any]:
        """Where a sample is among those that are wanted."""
        rows = self._finder.find(table, wanted).rows
        places = (rows == row).nonzero()[0].tolist()
        if not places:
            return {"back": list_url(wanted), "position": 0}
        place = places[0]

        def address(place: int) -> str | None:
            there = 0 <= place < len(rows)
            return sample_url(_named(table, int(rows[place])), wanted) if there else None

        return {
            "back": list_url(wanted, place // PAGE_ROWS + 1),
            "position": place + 1,
            "total": len(rows),
            "previous": address(place - 1),
            "next": address(place + 1),
        }

    def _beside(self, table: Table, column: Column, row: int) -> dict[str, Any]:
        """A column of the side by side."""
        answer = answers_of(table, [column.best])[0]
        named = _named(table, column.best)
        asked = self._problems.find(column.source, named.problem)
        code = code_of(answer, asked, self._problems.verifier(column.source))
        wanted = Filter(column.source.kind, column.source.cycle, problem=named.problem)
        return {
            "title": column.source.title,
            "here": column.source == table.source(row),
            "url": list_url(wanted),
            "outcomes": column.outcomes,
            "best_url": sample_url(named),
            "best_index": named.number,
            "best_outcome": table.name("outcome", column.best),
            "best_reward": _reward(float(table.columns["reward"][column.best])),
            "why": ("trained on first" if column.kept else "the best")
            + (", this one" if column.best == row else ""),
            "code": shown(code.code, code.language, _BESIDE) if code else None,
        }


def _seen(value: Any) -> Any:
    """Applied to all that templates put into a page: what is not markup of ours is made visible."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


def _named(table: Table, row: int) -> Named:
    index = int(table.columns["index"][row])
    return Named(table.source(row).key, table.name("problem_id", row), index)


def _listed(table: Table, rows: list[int], wanted: Filter) -> list[dict[str, Any]]:
    """The rows of a list."""
    said = [telling_line(text, _SAID) for text in diagnostics_of(table, rows)]
    silent = [place for place, text in enumerate(said) if not text]
    answers = answers_of(table, [rows[place] for place in silent])
    begins = dict(zip(silent, map(_begin, answers), strict=True))
    columns = table.columns
    return [
        {
            "url": sample_url(_named(table, row), wanted),
            "problem": clipped(table.name("problem_id", row), _NAME)[0],
            "index": int(columns["index"][row]),
            "source": table.source(row).title,
            "outcome": table.name("outcome", row),
            "reward": _reward(float(columns["reward"][row])),
            "tests": _tests(int(columns["tests_passed"][row]), int(columns["tests_total"][row])),
            "tokens": int(columns["num_tokens"][row]),
            "cut": table.name("finish_reason", row) == "length",
            "kept": _kept(int(columns["rank"][row])),
            "said": begins.get(place, said[place]),
            "is_code": place in begins,
        }
        for place, row in enumerate(rows)
    ]


def _begin(answer: str) -> str:
    """The first of an answer's code that tells something, or of an answer without."""
    text = clipped(answer, _LOOKED_AT)[0]
    code = extract(text, None) or last_block(text)
    lines = excerpt(code.code, "") if code else []
    return first_line(" ⏎ ".join(line.strip() for line in lines) or text, _SAID)


def _shares(outcomes: dict[str, int], wanted: Filter) -> list[dict[str, Any]]:
    """Each outcome that is there with its part of a bar 1,000 wide, the most frequent first."""
    total = sum(outcomes.values())
    begin = 0.0
    found = []
    for outcome, count in sorted(outcomes.items(), key=lambda each: -each[1]):
        width = 1000 * count / total
        told = {"begin": f"{begin:.2f}", "width": f"{width:.2f}", "share": f"{count / total:.1%}"}
        url = list_url(with_outcome(wanted, outcome))
        chosen = outcome in wanted.outcomes
        found.append({"outcome": outcome, "count": count, "url": url, "chosen": chosen, **told})
        begin += width
    return found


def _facts(whole: Whole, *asked: str | None) -> dict[str, str]:
    """The rest of what is known of a sample."""
    sample, verdict = whole.sample, whole.verdict
    log = sample["logprob_sum"]
    told = {
        "sample id": sample["sample_id"],
        "finish reason": sample["finish_reason"],
        "log-probability": None if log is None else f"{log:.2f} nats",
        "policy": sample["policy"],
        "sampling": sample["sampling"],
        "compiled": "yes" if verdict["compiled"] else "no",
        "ran": "yes" if verdict["ran"] else "no",
        "warnings": "yes" if verdict["warnings"] else "no",
        "compile time": f"{verdict['compile_ms']:,.0f} ms",
        "run time": f"{verdict['run_ms']:,.0f} ms",
        "outcome as it stands": verdict["raw_outcome"],
        "toolchain": verdict["toolchain"],
        "sandbox": verdict["sandbox_tier"],
        **dict(zip(("language", "difficulty", "judge", "source"), asked, strict=True)),
    }
    return {name: decoded(value.encode()) for name, value in told.items() if value}


def _reward(value: float) -> str:
    return f"{value:.3g}"


def _tests(passed: int, total: int) -> str:
    return f"{passed}/{total}" if total else _NONE


def _kept(rank: int) -> str:
    return f"rank {rank + 1}" if rank > NOT_KEPT else "no" if rank == NOT_KEPT else _NONE
