"""`%llm models info use load unload rm`, in real kernels: on a real Ollama, and on one that has what it has not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel, kinds
from live import eventually, place
from on_ollama import MODEL, SIZE, ask, bad, good, names
from servers.paced import ModelServer
from servers.real_ollama import Ollama
from servers.scripted_ollama import ScriptedOllama, entry


def loaded(server: Ollama) -> bool:
    """Whether a process of the server holds a model."""
    return bool(server.runners())


def rows(printed: str) -> dict[str, dict[str, str]]:
    """A table by its first column; a column begins where its head does, but for the sizes, which end there."""
    head, *lines = printed.split("\n\n")[0].splitlines()
    starts = [(found.group(), found.start()) for found in re.finditer(r"\S+(?: \S+)*", head) if found.group() != "size"]
    ends = [start for _, start in starts[1:]] + [None]
    cells = [{name: line[at:end].strip() for (name, at), end in zip(starts, ends, strict=True)} for line in lines]
    for row in cells:
        row["where"], _, size = row["where"].partition(" ")
        row["size"] = size.strip()
    return {row["model"]: row for row in cells}


def answered(kernel: Kernel, code: str, answer: str) -> tuple[str, list[str], str]:
    """Run a cell that asks something; the question, what was printed, the reply's status."""
    client, printed = kernel.client, []
    sent = client.execute(code, allow_stdin=True)
    question = client.get_stdin_msg(timeout=20)["content"]["prompt"]
    client.input(answer)
    while True:
        message = client.get_iopub_msg(timeout=20)
        if message["parent_header"].get("msg_id") != sent:
            continue
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])
        elif message["content"].get("execution_state") == "idle":
            break
    return question, printed, client.get_shell_msg(timeout=20)["content"]["status"]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, ollama: Ollama, weights: Path) -> Iterator[Kernel]:
    """A kernel that finds the real Ollama by `OLLAMA_HOST`."""
    home = tmp_path_factory.mktemp("home")
    place(weights, home)
    with Kernel(home, {"OLLAMA_HOST": f"127.0.0.1:{ollama.port}"}) as kernel:
        kernel.load()
        yield kernel


# -- seeing


@pytest.mark.live
def test_models_tells_of_every_model_what_one_chooses_by(kernel: Kernel, ollama: Ollama) -> None:
    good(kernel, f"%llm unload ollama/{MODEL}")
    ran = good(kernel, "%llm models")
    assert kinds(ran.outputs) == ["stdout"]
    table = rows(ran.printed)
    assert list(table) == [f"ollama/{MODEL}", "embedded/smollm2-135m"]
    assert table[f"ollama/{MODEL}"] == {
        "model": f"ollama/{MODEL}", "where": "local", "size": f"{SIZE} MB", "fits": "yes", "loaded": "no", "window": "8k",
        "quant": "Q4_1",
    }  # fmt: skip
    assert table["embedded/smollm2-135m"]["window"] == "4k of 8k"
    assert "lmstudio" not in ran.printed
    good(kernel, f"%llm load ollama/{MODEL}")
    assert rows(good(kernel, "%llm models").printed)[f"ollama/{MODEL}"]["loaded"] == "yes"


@pytest.mark.live
def test_a_found_server_that_does_not_run_is_said_only_in_the_look(kernel: Kernel) -> None:
    printed = good(kernel, "%llm").printed
    (absent,) = [line for line in printed.splitlines() if line.startswith("Not running at their usual places: ")]
    assert "lmstudio" in absent
    assert "ollama" not in absent
    look = {line.split()[0]: line for line in printed.splitlines() if line and line[0].islower()}
    assert "1 model" in look["ollama"]
    assert "the environment (OLLAMA_HOST)" in look["ollama"]


def test_models_of_many_kinds_are_told_apart(tmp_path: Path) -> None:
    details = {"quantization_level": "Q4_K_M", "context_length": 131_072}
    chat = ["completion", "tools", "thinking"]
    models = [
        entry("qwen3:8b", size=5_200_000_000, details=details, capabilities=chat),
        entry("llava:7b", details=details, capabilities=["completion", "vision"]),
        entry("nomic:latest", size=274_000_000, details={"quantization_level": "F16"}, capabilities=["embedding"]),
        entry("big:671b", size=404_000_000_000_000, details=details),
        entry("glm:cloud", size=384, remote_host="https://ollama.com:443", capabilities=chat),
        entry("kimi:1t-cloud", size=384),
    ]
    with ScriptedOllama(*models) as server, ModelServer() as configured:
        server.loaded = {"qwen3:8b": {"context_length": 16_384}}
        environment = {
            "OLLAMA_HOST": server.origin,
            "OPENAI_API_KEY": "sk-of-nobody",
            "LLM_JUPYTER_PROVIDERS__MINE__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__MINE__BASE_URL": configured.base_url,
            "LLM_JUPYTER_PROVIDERS__GONE__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__GONE__BASE_URL": "http://127.0.0.1:9/v1",
        }
        with Kernel(tmp_path, environment) as kernel:
            kernel.load()
            ran = good(kernel, "%llm models")
            info = good(kernel, "%llm info ollama/big:671b").printed
            away = good(kernel, "%llm info glm:cloud").printed
    table = rows(ran.printed)
    assert set(table) == {f"ollama/{model['name'].removesuffix(':latest')}" for model in models} | {
        "mine/m", "mine/other-model", "embedded/smollm2-135m"
    }  # fmt: skip

    def row(name: str, *columns: str) -> list[str]:
        return [table[name][column] for column in columns]

    facts = ("where", "size", "fits", "loaded", "window", "quant", "can also")
    assert row("ollama/qwen3:8b", *facts) == [
        "local", "5.2 GB", "yes", "yes", "16k of 128k", "Q4_K_M", "thinking, tools"
    ]  # fmt: skip
    assert row("ollama/llava:7b", "window", "can also", "loaded") == ["8k of 128k", "vision", "no"]
    assert row("ollama/nomic", "can also", "quant") == ["embedding", "F16"]
    assert row("ollama/big:671b", "fits") == ["no"]
    for name in ("glm:cloud", "kimi:1t-cloud"):
        assert row(f"ollama/{name}", "where", "size", "fits", "loaded") == ["remote", "", "", ""]
    assert re.search(r"^gone is down: .", ran.printed, re.MULTILINE)
    assert "Not asked, since remote: openai." in ran.printed
    assert "sk-of" not in ran.printed
    assert "404,000.0 GB, more than the free memory" in info
    assert "remote: prompts leave this machine" in away


@pytest.mark.live
def test_info_tells_what_the_server_knows(kernel: Kernel) -> None:
    for name in (f"ollama/{MODEL}", MODEL):
        facts = dict(re.split(r" {2,}|(?<=quantization) ", line, maxsplit=1) for line in
                     good(kernel, f"%llm info {name}").printed.splitlines())  # fmt: skip
        assert facts["model"] == f"ollama/{MODEL}"
        assert facts["where"] == "local: prompts stay on this machine"
        assert (facts["parameters"], facts["size"], facts["window"]) == ("135 million", f"{SIZE} MB", "8,192")
        assert (facts["license"], facts["quantization"]) == ("apache-2.0", "Q4_1")
        assert "chat" in facts["can"].split(", ")
    assert f"Did you mean ollama/{MODEL}?" in bad(kernel, "%llm info ollama/smollm2")[1]


# -- choosing, loading, freeing


@pytest.mark.live
def test_use_lets_it_answer_in_this_session(kernel: Kernel) -> None:
    assert f"ollama/{MODEL} (local) answers from now on" in good(kernel, f"%llm use ollama/{MODEL}").printed
    ran = good(kernel, "%chat -t 0 --max-tokens 3 hi")
    assert ran.answers[0]["metadata"]["llm_jupyter"]["model"] == MODEL
    assert ran.footers[0].startswith(f"ollama/{MODEL} · local")
    assert good(kernel, "%llm").printed.startswith(f"ollama/{MODEL} (local) answers because you named it")


@pytest.mark.live
def test_load_and_unload_change_what_the_server_holds(kernel: Kernel, ollama: Ollama) -> None:
    good(kernel, f"%llm unload ollama/{MODEL}")
    asyncio.run(eventually(lambda: not loaded(ollama), within=10))
    ran = good(kernel, f"%llm load ollama/{MODEL}")
    assert loaded(ollama)
    (last,) = ran.outputs
    assert re.fullmatch(rf"ollama/{MODEL} is loaded, after \d+\.\d s\.", last["data"]["text/plain"])
    assert f"ollama/{MODEL} is unloaded" in good(kernel, f"%llm unload ollama/{MODEL}").printed
    asyncio.run(eventually(lambda: not loaded(ollama), within=10))  # the server lets go of it a moment later
    assert "no model" in bad(kernel, "%llm load ollama/none")[0]


@pytest.mark.live
def test_a_model_that_the_server_has_loaded_answers_before_a_newer_one(
    tmp_path: Path, kernel: Kernel, ollama: Ollama, weights: Path
) -> None:
    asyncio.run(ollama.create("newer:135m", weights, system="Be brief."))
    try:
        good(kernel, f"%llm load ollama/{MODEL}")
        with Kernel(tmp_path, {"OLLAMA_HOST": ollama.url}) as fresh:
            fresh.load()
            will = [good(fresh, "%llm").printed]
            good(fresh, f"%llm unload ollama/{MODEL}")
            will.append(good(fresh, "%llm").printed)
    finally:
        ask(ollama, "/api/delete", {"model": "newer:135m"}, method="DELETE")
    assert will[0].startswith(f"ollama/{MODEL} (local) will answer because it is loaded in ollama")
    assert will[1].startswith("ollama/newer:135m (local) will answer because it is the newest model in ollama")


# -- deleting


@pytest.fixture
def spare(ollama: Ollama) -> Iterator[str]:
    """A second name of the model, for deleting."""
    ask(ollama, "/api/copy", {"source": MODEL, "destination": "spare:1b"})
    yield "spare:1b"
    if "spare:1b" in names(ollama):
        ask(ollama, "/api/delete", {"model": "spare:1b"}, method="DELETE")


@pytest.mark.live
def test_rm_asks_and_takes_no_for_an_answer(kernel: Kernel, ollama: Ollama, spare: str) -> None:
    for no in ("n", "", "what?"):
        question, printed, status = answered(kernel, f"%llm rm ollama/{spare}", no)
        assert question == f"Delete ollama/{spare} from disk? [y/N] "
        assert (status, "".join(printed)) == ("ok", f"ollama/{spare} was kept.\n")
        assert spare in names(ollama)
    _, printed, status = answered(kernel, f"%llm rm {spare}", "y")
    assert (status, "".join(printed)) == ("ok", f"ollama/{spare} is deleted.\n")
    assert names(ollama) == {MODEL}
    assert "no model" in bad(kernel, f"%llm use ollama/{spare}")[0]


@pytest.mark.live
@pytest.mark.parametrize("command", ["%llm rm ollama/spare:1b --yes", "%llm rm --yes spare:1b"])
def test_rm_with_yes_does_not_ask(kernel: Kernel, ollama: Ollama, spare: str, command: str) -> None:
    assert good(kernel, command).printed == "ollama/spare:1b is deleted.\n"
    assert names(ollama) == {MODEL}


@pytest.mark.live
def test_rm_where_nobody_can_be_asked_deletes_nothing(kernel: Kernel, ollama: Ollama, spare: str) -> None:
    error = bad(kernel, f"%llm rm ollama/{spare}")
    assert error == ["InvalidInputError: nobody can be asked here", "Add --yes to do it without asking."]
    assert spare in names(ollama)
    assert "Did you mean --yes?" in bad(kernel, f"%llm rm ollama/{spare} --yess")[1]
    assert "which model" in bad(kernel, "%llm rm --yes")[0]
    assert names(ollama) == {MODEL, spare}


@pytest.mark.live
def test_a_model_that_was_used_and_deleted_fails_in_few_lines(kernel: Kernel, ollama: Ollama, spare: str) -> None:
    good(kernel, f"%llm use ollama/{spare}")
    good(kernel, f"%llm rm ollama/{spare} --yes")
    error = bad(kernel, "%chat --max-tokens 3 hi")
    assert error[0].startswith("ModelNotFoundError: ")
    good(kernel, f"%llm use ollama/{MODEL}")
