"""The verifier as a stage of Ray Data: samples are judged as they arrive."""

from typing import Any

import ray.data

from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier


def verify_stage(
    samples: "ray.data.Dataset",
    problems_ref: "ray.ObjectRef[Any]",
    settings: VerifySettings,
    num_cpus_per_actor: float,
    actors: int,
) -> "ray.data.Dataset":
    """Rows of SAMPLE_SCHEMA with a column `verdict` added: the verdict as a JSON string.

    `problems_ref` holds a dict of problems by id, fetched once by each actor. A block is handed on
    when its last row is judged, so the rows of `samples` should come in small blocks.
    """
    return samples.map(
        Verifier,
        fn_constructor_args=(settings, problems_ref),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=num_cpus_per_actor,
    )
