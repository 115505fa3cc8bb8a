"""Results as plain values, for `--json`: what their tables tell, with numbers as they are."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haloforge.benchmark.compare import compare
from haloforge.benchmark.results import Result
from haloforge.model.adapter import read_info
from haloforge.model.policy import Policy
from haloforge.report.comparison import comparison_tree
from haloforge.report.summary import as_json
from haloforge.schema import Outcome
from haloforge.store.layout import STATISTICS
from haloforge.store.remote import shown

if TYPE_CHECKING:
    from haloforge.prove import Proof
    from haloforge.rescore import Scores
    from haloforge.study import Study

# Long, and in the results.json of the folder that is named.
_IN_THE_FILE = {"per_problem", "config"}


def measured_tree(results: Mapping[str, Result], folders: Mapping[str, Path]) -> dict[str, Any]:
    """By model its folder and what is in its results.json, but for each problem's counts and the
    settings; several are compared to the first."""
    return {
        "models": {
            name: {
                "folder": shown(folders[name]),
                **result.model_dump(mode="json", exclude=_IN_THE_FILE),
            }
            for name, result in results.items()
        },
        "comparison": comparison_tree(compare(results)) if len(results) > 1 else None,
    }


def pipeline_tree(output: str, summary: Path) -> dict[str, Any]:
    """The run's folder and its summary.json."""
    return {"output": output, "summary": json.loads(summary.read_text())}


def raft_tree(policy: Policy) -> dict[str, Any]:
    """The last model, the run's folder, and the records of raft_statistics.json."""
    assert policy.folder is not None
    run = policy.folder.parent
    cycles = json.loads((run / STATISTICS).read_text())
    return {"model": shown(policy.name), "output": shown(run), "cycles": cycles}


def trained_tree(policy: Policy) -> dict[str, Any]:
    """The model, and what is known of its training."""
    assert policy.folder is not None
    return {"model": shown(policy.name), "training": read_info(policy.folder).training}


def scores_tree(found: "Scores", output: Path) -> dict[str, Any]:
    """Outcomes with their shares of the samples that were scored and their mean rewards; `lost` are
    samples of which a failure of ours kept something from being judged."""
    counts = {name: n for name, n in found.outcomes.most_common() if name != Outcome.INFRA_ERROR}
    scored = sum(counts.values())
    return {
        "output": output,
        "samples": found.outcomes.total(),
        "scored": scored,
        "lost": found.lost,
        "complete": not found.lost,
        "mean_reward": found.rewards.total() / scored if scored else None,
        "outcomes": {
            name: {
                "samples": count,
                "share": count / scored,
                "mean_reward": found.rewards[name] / count,
            }
            for name, count in counts.items()
        },
        "sandbox_tiers": dict(found.tiers),
        "toolchains": {name: count for name, count in found.toolchains.items() if count},
    }


def proofs_tree(problems: int, proofs: "Sequence[Proof]", output: Path | None) -> dict[str, Any]:
    """The solutions that fail their own problem, and those that could not be judged; where the ids
    of the first were written to."""
    return {
        "problems": problems,
        "solutions": len(proofs),
        "failed": [_proof(each) for each in proofs if not each.holds and not each.lost],
        "lost": [_proof(each) for each in proofs if each.lost],
        "output": output,
    }


def _proof(proof: "Proof") -> dict[str, Any]:
    return {
        "problem_id": proof.problem.problem_id,
        "language": proof.language,
        "outcome": str(proof.verdict.outcome),
        "diagnostics": proof.verdict.diagnostics,
    }


def study_tree(found: "Study", results: Path) -> dict[str, Any]:
    """The pooled estimates; `results` is the folder of each seed's own."""
    return {
        "seeds": found.seeds,
        "models": as_json(found.models),
        "differences": as_json(found.differences),
        "trivial_rate": found.trivial_rate,
        "results": results,
    }
