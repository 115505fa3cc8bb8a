"""`halo-forge serve` with the bundled model, asked by OpenAI's own client."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai import OpenAI

from haloforge.model.bases import BUNDLED
from tests.adapters import random_adapter
from tests.processes import family, living, names, wait_until
from tests.serving import Server, answer_of, served

ROOT = Path(__file__).parents[2]
KEY = "key-of-the-test"
SYSTEM = "You write programs in C++."
QUESTION: list[Any] = [{"role": "user", "content": "Print the sum of two integers."}]
TOKENS = 12


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one`, trained with a system prompt, `two`, and `large`, of a higher rank."""
    folder = tmp_path_factory.mktemp("adapters")
    random_adapter(BUNDLED, folder / "one", 1, std=0.1, system=SYSTEM)
    random_adapter(BUNDLED, folder / "two", 2, std=0.1)
    random_adapter(BUNDLED, folder / "large", 3, rank=40)
    return folder


@pytest.fixture(scope="module")
def run(adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a RAFT run after its first cycle."""
    folder = tmp_path_factory.mktemp("raft")
    shutil.copytree(adapters / "one", folder / "cycle_1_final")
    return folder


@pytest.fixture(scope="module")
def server(run: Path, adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = ["rollout.dtype=float32", "rollout.max_model_len=1024", "rollout.kv_cache_gb=0.25"]
    log = tmp_path_factory.mktemp("serve") / "log"
    models = [str(run), f"two={adapters / 'two'}"]
    with served(models, log, *settings, environment={"HALOFORGE_API_KEY": KEY}) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=server.address, api_key=KEY, max_retries=0, timeout=120)


def streamed(client: OpenAI, model: str) -> tuple[str, str, int]:
    """The answer, what the model is called in it, and in how many pieces it came."""
    text, called, pieces = "", "", 0
    stream: Any = client.chat.completions.create(
        model=model, messages=QUESTION, stream=True, temperature=0, max_tokens=TOKENS
    )
    for piece in stream:
        called = piece.model
        if piece.choices and piece.choices[0].delta.content:
            text += piece.choices[0].delta.content
            pieces += 1
    return text, called, pieces


def test_a_token_streams_and_other_adapters_answer_by_name(
    client: OpenAI, run: Path, adapters: Path
) -> None:
    listed = [model.id for model in client.models.list().data]
    assert listed == ["cycle_1_final", "latest", "two", BUNDLED]
    by_name = {name: streamed(client, name) for name in listed}
    expected = {
        "cycle_1_final": answer_of(run / "cycle_1_final", QUESTION, TOKENS),
        "two": answer_of(adapters / "two", QUESTION, TOKENS),
        BUNDLED: answer_of(BUNDLED, QUESTION, TOKENS),
    }
    assert {name: by_name[name][0] for name in expected} == expected
    assert len(set(expected.values())) == 3, "adapters that say the same show nothing"
    assert by_name["latest"][:2] == by_name["cycle_1_final"][:2]
    assert by_name[BUNDLED][1] == BUNDLED
    assert re.fullmatch(rf"{BUNDLED}:two:[0-9a-f]{{12}}", by_name["two"][1])
    assert by_name["two"][2] > 1, "it came in pieces"


def test_the_adapter_s_own_system_prompt_gives_way_to_the_client_s(client: OpenAI) -> None:
    def asked(*system: str) -> str | None:
        turns: Any = [{"role": "system", "content": text} for text in system] + QUESTION
        answer = client.chat.completions.create(
            model="latest", messages=turns, temperature=0, max_tokens=TOKENS
        )
        return answer.choices[0].message.content

    assert asked() == asked(SYSTEM) != asked("Answer in French.")


def test_a_new_cycle_is_served_without_a_restart(
    client: OpenAI, server: Server, run: Path, adapters: Path
) -> None:
    before = server.replicas()
    assert len(before) == 1
    old = streamed(client, "latest")
    shutil.copytree(adapters / "two", run / "partial")
    (run / "partial").rename(run / "cycle_2_final")
    assert streamed(client, "cycle_2_final")[0] == streamed(client, "two")[0] != old[0]
    assert wait_until(lambda: streamed(client, "latest")[1] != old[1], 20)
    assert streamed(client, "latest")[0] == streamed(client, "two")[0]
    assert streamed(client, "cycle_1_final") == old
    assert server.says("models: also cycle_2_final")
    assert server.replicas() == before


def test_other_weights_under_a_name_answer_as_soon_as_they_are_there(
    client: OpenAI, run: Path, adapters: Path
) -> None:
    shutil.copytree(adapters / "one", run / "cycle_3_final")
    old = streamed(client, "cycle_3_final")
    (run / "cycle_3_final").rename(run / "gone")
    shutil.copytree(adapters / "two", run / "cycle_3_final")
    shutil.rmtree(run / "gone")
    assert wait_until(lambda: streamed(client, "cycle_3_final")[1] != old[1], 20)
    assert streamed(client, "cycle_3_final")[0] == streamed(client, "two")[0]


def test_what_cannot_be_answered_is_said_in_openai_s_form(
    client: OpenAI, server: Server, run: Path, adapters: Path
) -> None:
    def refusal(model: str) -> str:
        with pytest.raises(openai.NotFoundError) as caught:
            streamed(client, model)
        body: Any = caught.value.body
        return str(body["message"])

    assert refusal("gpt-4").startswith("no model 'gpt-4': there are cycle_1_final,")
    shutil.copytree(adapters / "large", run / "cycle_9_final")
    assert refusal("cycle_9_final").endswith("start it with serve.max_lora_rank=40")
    shutil.rmtree(run / "cycle_9_final")
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="two", prompt="x" * 9000, max_tokens=1)
    for wrong in (None, "another"):
        stranger = OpenAI(base_url=server.address, api_key=wrong or "none", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="API key"):
            stranger.models.list()
        with pytest.raises(openai.AuthenticationError, match="API key"):
            streamed(stranger, "two")
    assert streamed(client, "two")[0], "all of which harmed nothing"


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    port = int(server.address.rpartition(":")[2].removesuffix("/v1"))
    listening = [
        each.laddr
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port
    ]
    assert {place.ip for place in listening} == {"127.0.0.1"}


def test_a_second_server_there_is_refused_at_once(server: Server, run: Path) -> None:
    port = server.address.rpartition(":")[2].removesuffix("/v1")
    command = [sys.executable, "-m", "haloforge", "serve", "--model", str(run), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in done.stderr


def test_the_readme_s_client_and_curl_are_answered(server: Server, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text().replace("http://127.0.0.1:8000/v1", server.address)
    python = re.search(r"```python\n(from openai .*?)```", text, re.S)
    curl = re.search(r"^ {4}(curl .*)$", text, re.M)
    assert python and curl
    environment = {"HALOFORGE_API_KEY": KEY, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    source = python[1].replace('"none"', repr(KEY))
    run = {"capture_output": True, "text": True, "timeout": 200, "env": environment}
    done = subprocess.run([sys.executable, "-c", source], **run)  # type: ignore[call-overload]
    assert done.returncode == 0 and len(done.stdout) > 20, done.stderr
    done = subprocess.run(["sh", "-c", curl[1]], **run)  # type: ignore[call-overload]
    assert json.loads(done.stdout)["choices"][0]["message"]["content"], done.stdout


def test_it_is_asked_for_data(server: Server, tmp_path: Path) -> None:
    """So small a model writes no exercise that holds; what it wrote is kept with the reason."""
    output = tmp_path / "data.jsonl"
    command = [sys.executable, "-m", "haloforge", "data", "generate", "--topic", "python_testing"]
    command += ["--backend", server.address, "--model", BUNDLED, "--count", "3"]
    command += ["--output", str(output), "--set", "generate.answer_tokens=64"]

    def ask() -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "HALOFORGE_API_KEY": KEY}
        return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)

    done = ask()
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"{output}: no answer holds" in done.stderr
    rejected = output.with_name("data.rejected.jsonl").read_text().splitlines()
    assert len({json.loads(line)["request"] for line in rejected}) == 3
    assert all(json.loads(line)["answer"] for line in rejected)
    answers = output.with_name("data.jsonl.answers") / "answers.jsonl"
    first = answers.read_bytes()
    assert ask().returncode == 1
    assert answers.read_bytes() == first, "nothing is asked for again"


@pytest.mark.slow
def test_a_dead_engine_is_replaced(server: Server, client: OpenAI) -> None:
    [replica] = server.replicas()
    [engine] = [each for each in replica.children() if "EngineCore" in " ".join(each.cmdline())]
    engine.kill()

    def answers() -> bool:
        try:
            return bool(streamed(client, "two")[0])
        except openai.OpenAIError:
            return False

    assert not answers()
    assert wait_until(answers, 240)
    assert server.says("engines: running")
    assert server.replicas() != [replica]


def test_it_ends_when_it_is_told_to_and_leaves_nothing(server: Server) -> None:
    started = family(server.process.pid)
    server.process.terminate()  # as Ctrl-C
    assert server.process.wait(timeout=60) == 0
    assert "no longer served" in server.log.read_text()
    assert wait_until(lambda: not living(started), 30), names(started)
