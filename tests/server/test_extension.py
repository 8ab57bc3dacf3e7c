"""The server extension in a real jupyter_server, loaded by the file that the wheel installs."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_server.serverapp import ServerApp
from tornado.httpclient import HTTPResponse

import llm_jupyter

STATUS = ("llm-jupyter", "status")
Get = Callable[..., HTTPResponse]


def body(response: HTTPResponse) -> dict[str, Any]:
    assert response.code == 200, response.body
    assert response.headers["Content-Type"].startswith("application/json")
    return json.loads(response.body)


def test_the_installed_configuration_loads_the_extension(jp_serverapp: ServerApp) -> None:
    manager = jp_serverapp.extension_manager
    assert manager.extensions["llm_jupyter"].enabled
    assert manager.extension_apps["llm_jupyter"]
    assert "/a%40b/llm-jupyter/status" in {
        rule.matcher.regex.pattern.rstrip("$").replace("\\", "")
        for group in jp_serverapp.web_app.default_router.rules
        for rule in getattr(group.target, "rules", [])
    }


def test_the_status_names_the_version_and_the_places(get: Get, home: Path) -> None:
    assert body(get(*STATUS)) == {
        "version": llm_jupyter.__version__,
        "home": str(home),
        "settings_file": str(home / "config.toml"),
        "settings_file_exists": False,
        "settings_error": None,
        "default_model": None,
        "local_only": False,
        "providers": [],
    }


def test_the_status_tells_what_is_configured_and_no_secret(get: Get, home: Path) -> None:
    (home / "config.toml").write_text("""
        default_model = "near/m"
        local_only = true
        [providers.near]
        kind = "openai-compatible"
        base_url = "http://someone:pass-in-url@127.0.0.1:1/v1"
        api_key = "key-in-file"
        token = "key-in-option"
        [providers.far]
        kind = "llamacpp"
        enabled = false
    """)
    response = get(*STATUS)
    status = body(response)
    assert status["settings_file_exists"] is True
    assert status["default_model"] == "near/m"
    assert status["local_only"] is True
    assert status["providers"] == [
        {"name": "far", "kind": "llamacpp", "enabled": False},
        {"name": "near", "kind": "openai-compatible", "enabled": True},
    ]
    for secret in (b"pass-in-url", b"key-in-file", b"key-in-option"):
        assert secret not in response.body


def test_a_settings_file_that_is_wrong_is_said_in_the_status(get: Get, home: Path) -> None:
    (home / "config.toml").write_text("[providers.near]\napi_key = 'key-in-file'\n")
    response = get(*STATUS)
    status = body(response)
    assert "providers.near.kind" in status["settings_error"]
    assert status["providers"] == []
    assert b"key-in-file" not in response.body


def test_without_a_token_there_is_no_status(get: Get) -> None:
    response = get(*STATUS, headers={"Authorization": ""})
    assert response.code in (401, 403)
    assert b"home" not in response.body


def test_a_wrong_token_gets_no_status(get: Get) -> None:
    assert get(*STATUS, headers={"Authorization": "token wrong"}).code in (401, 403)


def test_the_server_answers_others_while_the_disk_keeps_the_status_waiting(
    jp_asyncio_loop: asyncio.AbstractEventLoop, jp_fetch: Callable[..., Any], home: Path
) -> None:
    pipe = home / "config.toml"
    os.mkfifo(pipe)  # a file that cannot be read until somebody writes to it

    async def scenario() -> HTTPResponse:
        waiting = asyncio.ensure_future(jp_fetch(*STATUS))
        for _ in range(5):
            assert (await jp_fetch("api", request_timeout=5)).code == 200
        assert not waiting.done()
        await asyncio.to_thread(pipe.write_text, 'default_model = "a/late"')
        return await waiting

    assert body(jp_asyncio_loop.run_until_complete(scenario()))["default_model"] == "a/late"
