"""Bookings never exceed what Ray has, so no stage can wait for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haloforge.errors import InputError, ResourceError
from haloforge.placement import Cluster, Fleet, fleet, place
from haloforge.rollout.cores import share_of
from haloforge.verify.settings import VerifySettings


@given(
    cpus=st.integers(1, 512),
    gpus=st.integers(0, 64),
    engines=st.integers(1, 8),
    tensor_parallel=st.integers(1, 4),
    verifiers=st.none() | st.integers(1, 64),
    trainers=st.none() | st.integers(1, 16),
)
def test_what_lives_together_fits(
    cpus: int,
    gpus: int,
    engines: int,
    tensor_parallel: int,
    verifiers: int | None,
    trainers: int | None,
) -> None:
    cluster = Cluster(cpus, gpus, cpus)
    try:
        plan = place(cluster, engines, tensor_parallel, trainers)
    except ResourceError:
        return
    engine_cpus = plan.engines * plan.cpus_per_engine
    judges = fleet(cpus, VerifySettings(actors=verifiers))
    assert engine_cpus + judges.max_actors * judges.cpus_per_actor <= cpus
    assert engine_cpus + plan.trainers * plan.cpus_per_trainer <= cpus
    engine_gpus = plan.engines * plan.gpus_per_engine
    assert engine_gpus + plan.trainers * plan.gpus_per_trainer <= gpus


def test_two_cores_hold_an_engine_and_two_trainers() -> None:
    plan = place(Cluster(2, 0, 2), engines=1, trainers=2)
    assert plan.cpus_per_engine + 2 * plan.cpus_per_trainer <= 2
    assert plan.threads_per_trainer == 1


def test_one_gpu_is_shared_by_an_engine_and_a_trainer() -> None:
    plan = place(Cluster(8, 1, 8), engines=1)
    assert (plan.trainers, plan.gpus_per_engine, plan.gpus_per_trainer) == (1, 0.6, 0.4)
    assert plan.engines_sleep
    with pytest.raises(ResourceError, match="Ray has 1"):
        place(Cluster(8, 1, 8), engines=1, trainers=2)


@given(gpus=st.integers(1, 64), trainers=st.none() | st.integers(1, 64))
def test_colocated_no_packing_puts_two_of_a_kind_on_a_gpu(gpus: int, trainers: int | None) -> None:
    try:
        plan = place(Cluster(256, gpus, 256), gpus, 1, trainers, "colocated")
    except ResourceError:
        assert trainers is not None and trainers > gpus
        return
    engine, trainer = plan.gpus_per_engine, plan.gpus_per_trainer
    assert engine + trainer <= 1 < min(2 * engine, engine + 2 * trainer)
    assert plan.engines == gpus >= plan.trainers, (
        "a GPU without an engine has room for two trainers"
    )


@pytest.mark.parametrize(
    ("gpus", "engines", "tensor_parallel", "settings"),
    [
        (8, 8, 2, ["rollout.tensor_parallel", "rollout.placement"]),
        (8, 4, 1, ["rollout.engines=8", "placement to disaggregated"]),
    ],
)
def test_what_cannot_be_colocated_names_the_settings(
    gpus: int, engines: int, tensor_parallel: int, settings: list[str]
) -> None:
    with pytest.raises(ResourceError) as refused:
        place(Cluster(64, gpus, 64), engines, tensor_parallel, layout="colocated")
    assert all(setting in str(refused.value) for setting in settings)


@given(
    nodes=st.lists(st.tuples(st.integers(4, 128), st.integers(1, 8)), min_size=1, max_size=6),
    tensor_parallel=st.integers(1, 4),
    engines=st.integers(1, 24),
    trainers=st.none() | st.integers(1, 16),
)
def test_on_gpus_no_node_is_too_crowded_for_its_cpus(
    nodes: list[tuple[int, int]], tensor_parallel: int, engines: int, trainers: int | None
) -> None:
    """Ray may put as many engines on a node as its GPUs allow, and trainers on those left over."""
    cpus, gpus = zip(*nodes, strict=True)
    cluster = Cluster(sum(cpus), sum(gpus), 8, cpus, gpus)
    try:
        plan = place(cluster, engines, tensor_parallel, trainers)
    except ResourceError:
        return
    for node_cpus, node_gpus in nodes:
        most = min(plan.engines, int(node_gpus // max(1, plan.gpus_per_engine)))
        beside = min(plan.trainers, node_gpus)
        assert most * plan.cpus_per_engine + beside * plan.cpus_per_trainer <= node_cpus


def test_on_cpus_nothing_sleeps() -> None:
    assert place(Cluster(4, 0, 4), 1, layout="colocated") == place(Cluster(4, 0, 4), 1)
    assert not place(Cluster(4, 0, 4), 1, layout="colocated").engines_sleep


@given(st.lists(st.integers(0, 500), min_size=1, unique=True), st.integers(1, 8))
def test_a_node_s_engines_share_all_its_cores(cores: list[int], engines: int) -> None:
    shares = [share_of(cores, rank, engines) for rank in range(engines)]
    assert all(shares)
    assert {core for share in shares for core in share} == set(cores)
    if engines <= len(cores):
        assert sum(map(len, shares)) == len(cores)


@pytest.mark.parametrize(
    ("cluster", "engines", "tensor_parallel", "setting"),
    [
        (Cluster(8, 2, 8), 2, 1, "rollout.engines"),
        (Cluster(8, 0, 8), 1, 2, "rollout.tensor_parallel"),
        (Cluster(2, 0, 2), 3, 1, "rollout.engines"),
    ],
)
def test_what_does_not_fit_names_the_setting(
    cluster: Cluster, engines: int, tensor_parallel: int, setting: str
) -> None:
    with pytest.raises(ResourceError, match=setting):
        place(cluster, engines, tensor_parallel)


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        ({}, 1, 8),
        ({"actors": 3}, 3, 3),
        ({"min_actors": 2}, 2, 8),
        ({"min_actors": 20}, 20, 20),
        ({"max_actors": 4}, 1, 4),
    ],
)
def test_a_fleet_has_one_verifier_a_cpu_at_most(
    settings: dict[str, int], least: int, most: int
) -> None:
    found = fleet(8, VerifySettings.model_validate({**settings, "resource": "boxes"}))
    assert found == Fleet(least, most, 4 / most, "boxes")
    assert 0 < found.steering["resources"]["boxes"] < 1 / 64


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"actors": 2, "max_actors": 4}, "give verify.actors, or"),
        ({"min_actors": 5, "max_actors": 4}, "verify.min_actors is more than"),
    ],
)
def test_numbers_that_contradict_are_refused(settings: dict[str, int], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        VerifySettings.model_validate(settings)


@pytest.mark.parametrize(
    ("nodes", "trainers"),
    [((4.0,) * 4, 1), ((4.0,) * 8, 1), ((4.0, 4.0), 3), ((16.0, 2.0), 4), ((2.0, 2.0), 2)],
)
def test_no_booking_is_larger_than_a_node_s_share(nodes: tuple[float, ...], trainers: int) -> None:
    plan = place(Cluster(sum(nodes), 0, 4, nodes), engines=1, trainers=trainers)
    rest = sorted(nodes, reverse=True)
    for booked in (plan.cpus_per_engine, *[plan.cpus_per_trainer] * trainers):
        place_of = next(index for index, free in enumerate(rest) if free >= booked)
        rest[place_of] -= booked
        rest.sort(reverse=True)
    assert sum(rest) > 0, "nothing is left for Ray's own tasks"
