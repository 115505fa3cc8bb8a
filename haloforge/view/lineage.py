"""Where a sample comes from and what came of it: policies and adapters, as the run tells them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from haloforge.view.index import Table
from haloforge.view.rows import Whole
from haloforge.view.sources import SAMPLES, Source

_INFO, _RESULTS = "haloforge.json", "results.json"
_UNREADABLE = (OSError, ValueError, TypeError)


class Step(NamedTuple):
    """One line of it: what it is, and what is known of that."""

    what: str
    told: str
    key: str = ""
    """Of a source that it leads to."""


def lineage(run: Path, table: Table, whole: Whole) -> list[Step]:
    """From the base to the adapters that the sample was trained into."""
    source = table.source(whole.row)
    where = table.place(whole.row)
    path = where.shard.path("samples").relative_to(run).as_posix()
    steps = [*_policy(source, whole.sample["policy"])]
    steps.append(Step("this sample", f"{path}, row {where.row + 1}"))
    if source.kind.rpartition("/")[2] != SAMPLES:
        steps.append(Step("use", "measured only, never trained on"))
        return steps
    raft = source.folder.parent
    if not whole.trained_in:
        chosen = (source.folder / "trained.parquet").is_file()
        steps.append(Step("kept", "no" if chosen else "not chosen from yet"))
    for cycle, rank in sorted(whole.trained_in.items()):
        adapter = raft / f"cycle_{cycle}_final"
        told = adapter.name if adapter.is_dir() else f"{adapter.name}, which is not there yet"
        steps.append(Step(f"trained on in cycle {cycle}", f"rank {rank + 1}, gave {told}"))
    return steps


def _policy(source: Source, policy: str) -> list[Step]:
    """What wrote the sample, and what that was made from."""
    if source.cycle is None:
        result = _json(source.folder / _RESULTS)
        base = [Step("base", f"{result['base']}")] if "base" in result else []
        return [*base, Step("written by", _named(result.get("model"), policy))]
    raft = source.folder.parent
    measured = source.kind.rpartition("/")[2] != SAMPLES
    if measured and source.cycle:  # cycle_N/eval: what cycle N ended with
        raft = raft.parent
    last = source.cycle if measured else source.cycle - 1
    infos = {cycle: _json(raft / f"cycle_{cycle}_final" / _INFO) for cycle in range(1, last + 2)}
    first = infos.get(1, {})
    steps = []
    if "base_public_id" in first:
        steps.append(Step("base", _named(first["base_public_id"], first.get("base_digest"))))
    start = first.get("parent")
    if last < 1:
        return [*steps, Step("written by", _named("the policy that the run began from", policy))]
    if start:
        steps.append(Step("began from", _named("policy", start)))
    for cycle in range(1, last + 1):
        after = infos.get(cycle + 1, {}).get("parent")  # it tells the digest of the one before
        digest = policy if cycle == last else after
        what = "written by" if cycle == last else f"cycle {cycle}"
        there = "" if infos[cycle] else " (not there)"
        steps.append(Step(what, _named(f"cycle_{cycle}_final{there}", digest)))
    return steps


def _named(name: Any, digest: Any) -> str:
    told = str(name) if name else "a policy"
    return f"{told}, {digest}" if digest else told


def _json(path: Path) -> dict[str, Any]:
    """Nothing where the file is not there or cannot be read: what it would tell is left out."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except _UNREADABLE:
        return {}
