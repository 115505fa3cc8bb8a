"""How samples travel through Ray Data: in groups, each a row of the data set.

Each block costs the driver of Ray Data some ten milliseconds, so that blocks of one sample are a
hundred samples a second at the most, for a whole cluster. Samples that are finished at about the
same time travel together, and one that is finished alone travels alone.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data

SAMPLES, VERDICTS, WORK = "samples", "verdicts", "work"
HAND_ON_S = 0.1
"""Seconds between two groups of a task, at least: what is finished meanwhile goes with the next."""

Rows = list[dict[str, Any]]


def group(samples: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """A block that holds `samples`, rows of `schema`, as its one row."""
    return pa.table({SAMPLES: _one(samples, pa.struct(list(schema)))})


def judged_group(
    samples: pa.Array, verdicts: Sequence[dict[str, Any]], work: dict[str, Any] | None = None
) -> pa.Table:
    """A block that holds the samples of a group, the verdict of each as JSON, and what the verifier
    tells of its own work."""
    told = [json.dumps(verdict) for verdict in verdicts]
    return pa.table(
        {
            SAMPLES: _one(samples, samples.type),
            VERDICTS: _one(told, pa.string()),
            WORK: pa.array([json.dumps(work)]),
        }
    )


def samples_of(block: pa.Table) -> pa.Array:
    """The samples in `block`, as an array of structs."""
    return block[SAMPLES].combine_chunks().flatten()


def samples_in(dataset: "ray.data.Dataset") -> Iterator[dict[str, Any]]:
    """The samples of a data set of groups as they come, in any order."""
    for block in _blocks(dataset):
        yield from samples_of(block).to_pylist()


def judged_in(
    dataset: "ray.data.Dataset", worked: Callable[[dict[str, Any]], None] | None = None
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each sample of a data set of judged groups with its verdict, as they come, in any order;
    `worked` gets what verifiers tell of their work."""
    for block in _blocks(dataset):
        if worked is not None and (work := json.loads(block[WORK][0].as_py())):
            worked(work)
        verdicts: Iterable[str] = block[VERDICTS].combine_chunks().flatten().to_pylist()
        yield from zip(samples_of(block).to_pylist(), map(json.loads, verdicts), strict=True)


def _one(items: Any, kind: pa.DataType) -> pa.Array:
    """A list array of one list."""
    values = items if isinstance(items, pa.Array) else pa.array(items, type=kind)
    return pa.ListArray.from_arrays(pa.array([0, len(values)], type=pa.int32()), values)


def _blocks(dataset: "ray.data.Dataset") -> Iterator[pa.Table]:
    for bundle in dataset.iter_internal_ref_bundles():
        for block in bundle.blocks:
            yield ray.get(block.ref)
