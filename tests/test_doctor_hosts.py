"""What the doctor says of the hosts of the settings, from what their supervisors have written down."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hosts.children import problem
from routes import free_port

from llm_jupyter.doctor.case import Case
from llm_jupyter.doctor.findings import Finding
from llm_jupyter.doctor.hosts import look_at_hosts
from llm_jupyter.doctor.ports import Listener, listeners
from llm_jupyter.errors import HostError
from llm_jupyter.factory import LLMFactory
from llm_jupyter.settings import load_settings


async def found(
    home: Path, ports: dict[int, Listener], *, started: str = "", **hosts: dict[str, Any]
) -> dict[str, Finding]:
    """The findings by code, after a host was started, in vain or not, and all were left again."""
    settings = load_settings({"hosts": hosts}, {"LLM_JUPYTER_HOME": str(home)})
    async with LLMFactory(settings, environment={}) as llm:
        if started:
            with pytest.raises(HostError):
                await llm.hosts.start(started)
    return {finding.code: finding async for finding in look_at_hosts(Case(settings, {}, "cell"), ports)}


def table(*words: str, **fields: Any) -> dict[str, Any]:
    return {"command": list(problem("problem", *words).command), **fields}


async def test_a_host_that_was_given_up_is_an_error_with_its_reason_last_words_and_what_to_change(
    tmp_path: Path,
) -> None:
    said = (await found(tmp_path, {}, started="mine", mine=table("exit", "3")))["host-failed"]
    assert said.what == 'mine: was given up: it ended with exit code 3; it last wrote "this cannot work"'
    assert said.remedy.words == "Type: %llm host logs mine"
    said = (await found(tmp_path, {}, started="mine", mine=table(ready="/no", start_timeout=2)))["host-failed"]
    assert "not ready within 2 s: /no answers 404" in said.what
    assert "ready in [hosts.mine]" in said.remedy.words


async def test_a_host_is_looked_for_at_the_port_that_it_has_of_its_own(tmp_path: Path) -> None:
    settings = load_settings({"hosts": {"mine": table()}}, {"LLM_JUPYTER_HOME": str(tmp_path)})
    async with LLMFactory(settings, environment={}) as llm:
        status = await llm.hosts.start("mine")
        findings = [finding async for finding in look_at_hosts(Case(settings, {}), listeners())]
    assert [finding.code for finding in findings] == ["host"]
    assert f"answers at port {status.url.rpartition(':')[2]}" in findings[0].what


async def test_a_command_of_nothing_and_a_port_for_two_are_told(tmp_path: Path) -> None:
    port = free_port()
    assert list(await found(tmp_path, {}, mine={"command": [""]})) == ["program-missing"]
    two = {"command": [sys.executable], "port": port}
    said = (await found(tmp_path, {}, a=two, b=two, c={"command": [sys.executable]}))["port-shared"]
    assert said.what == f"a and b have the same port {port}: only one of them can run at a time"
    assert "hosts.b.port" in said.remedy.commands[0]
