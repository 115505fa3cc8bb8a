"""What commands on data tell, as plain values for `--json`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from haloforge.data.generate.asking import Asked
    from haloforge.data.generate.cost import Cost
    from haloforge.data.generate.generate import Plan
    from haloforge.data.generate.keeping import Kept
    from haloforge.data.prepare import Prepared
    from haloforge.data.prompts import Prompts
    from haloforge.data.show import Shown
    from haloforge.data.split import Part


def catalogue_tree() -> dict[str, Any]:
    """The data sets that are known by name; `rows` by split, null where nobody counted them."""
    from haloforge.data.catalogue import entries

    return {
        "data_sets": [
            {
                "name": entry.name,
                "origin": str(entry.origin),
                "licence": entry.licence,
                "languages": list(entry.languages),
                "rows": {name: split.rows for name, split in entry.splits.items()},
                "rows_source": entry.rows_source,
                "uses": list(entry.uses),
                "tests": entry.tests,
                "about": entry.about,
            }
            for entry in entries().values()
        ]
    }


def prepared_tree(done: "Prepared") -> dict[str, Any]:
    """Files, and how many rows are in them and were left out, by reason."""
    return asdict(done)


def parts_tree(parts: "Sequence[Part]") -> dict[str, Any]:
    """Of each part its file, and its rows by difficulty."""
    return {"parts": [{**asdict(part), "difficulties": dict(part.difficulties)} for part in parts]}


def prompts_tree(output: Path, done: "Prompts") -> dict[str, Any]:
    """How many prompts were written, of how many rows, and how many of them have tests."""
    return {"output": output, **asdict(done)}


def shown_tree(found: "Shown") -> dict[str, Any]:
    """The rows as they are; of `sampled` rows of all `total` the numbers, with counts by powers of
    two, and the names; `not_given` counts rows that have no value."""
    return {
        "total": found.total,
        "sampled": found.sampled,
        "rows": [{"place": place, "row": row} for place, row in found.rows],
        "numbers": {
            name: {**_spread(numbers), "not_given": found.without[name]}
            for name, numbers in found.numbers.items()
        },
        "names": {
            name: {"counts": dict(counts.most_common()), "not_given": found.without[name]}
            for name, counts in found.names.items()
        },
    }


def _spread(numbers: Sequence[int]) -> dict[str, Any]:
    if not numbers:
        return {"rows": 0, "min": None, "median": None, "p95": None, "max": None, "histogram": []}
    least, median, p95, most = (float(x) for x in np.percentile(numbers, [0, 50, 95, 100]))
    lengths = np.bincount([number.bit_length() for number in numbers])
    return {
        "rows": len(numbers),
        "min": least,
        "median": median,
        "p95": p95,
        "max": most,
        "histogram": [
            {"from": 2 ** (bits - 1) if bits else 0, "to": 2**bits - 1, "rows": int(count)}
            for bits, count in enumerate(lengths)
            if count
        ],
    }


def listing_tree() -> dict[str, Any]:
    """The topics and backends of `data generate` that are known by name."""
    from haloforge.data.generate.generate import listing

    rows = listing()
    return {
        "topics": [row for row in rows if "topic" in row],
        "backends": [row for row in rows if "backend" in row],
    }


def cost_tree(cost: "Cost", planned: "Plan") -> dict[str, Any]:
    """What is left to ask may cost; `usd` is null where the price is not known."""
    return {"cost": {**asdict(cost), "model": planned.backend.model}}


def generated_tree(planned: "Plan", asked: "Asked", kept: "Kept") -> dict[str, Any]:
    """How many answers were looked at and rows written, and why others were not; and how many
    requests were answered or given up."""
    from haloforge.data.validate.fix import rejected_path

    return {
        "output": planned.output,
        "for": planned.purpose,
        "read": kept.read,
        "rows": kept.rows,
        "left_out": {str(reason): count for reason, count in kept.left_out.most_common()},
        "rejected": rejected_path(planned.output) if kept.left_out else None,
        "asked": asdict(asked),
    }
