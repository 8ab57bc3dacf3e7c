"""`%llm` and its commands, over a scripted server."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernels import Kernel, kinds
from servers.paced import ModelServer
from servers.scripted import Gate, answer

from llm_jupyter.magics.llm import COMMANDS


def said(notebook: Kernel, command: str) -> str:
    """What a command prints; it must be all that it does."""
    ran = notebook.run(command)
    assert ran.status == "ok", ran.error
    assert kinds(ran.outputs) == ["stdout"]
    assert max(map(len, ran.printed.splitlines())) <= 160
    return ran.printed


def test_one_look_says_what_runs_and_who_answers(notebook: Kernel, server: ModelServer) -> None:
    notebook.run("%chat one")
    text = said(notebook, "%llm")
    assert text.startswith("local/m (local) answers")
    assert "1 turn." in text
    rows = {line.split()[0]: line for line in text.splitlines() if line and line[0].islower()}
    assert "2 models" in rows["local"]
    assert "llamacpp" in rows["embedded"]
    assert "built in" in rows["embedded"]
    assert len(text.splitlines()) <= 12
    assert "%llm help" in text


def test_models_lists_every_model_that_can_be_asked(notebook: Kernel) -> None:
    text = said(notebook, "%llm models")
    names = [line.split()[0] for line in text.splitlines()[1:] if line]
    assert names[:3] == ["local/m", "local/other-model", "embedded/smollm2-135m"]


def test_use_holds_for_the_session(notebook: Kernel, server: ModelServer) -> None:
    assert "local/other-model (local) answers from now on" in said(notebook, "%llm use local/other-model")
    notebook.run("%chat a")
    notebook.run("%%llm\nb")
    assert said(notebook, "%llm").startswith("local/other-model (local) answers")
    assert [chat["model"] for chat in server.chats] == ["other-model"] * 2
    said(notebook, "%llm use local/m")
    assert not (notebook.home / "config.toml").exists()


def test_use_that_fails_leaves_the_choice(notebook: Kernel, server: ModelServer) -> None:
    said(notebook, "%llm use local/m")
    ran = notebook.run("%llm use local/othermodel")
    assert ran.status == "error"
    assert "Did you mean local/other-model?" in ran.error[1]
    notebook.run("%chat a")
    assert server.chats[-1]["model"] == "m"


def test_use_with_default_writes_the_settings_and_keeps_what_stands_there(notebook: Kernel) -> None:
    file = notebook.home / "config.toml"
    file.write_text('# mine\nfooter = "on"  # I like it\n\n[providers.lab]\nkind = "openai-compatible"\n')
    try:
        text = said(notebook, "%llm use --default local/other-model")
        assert str(file) in text
        assert file.read_text() == (
            '# mine\nfooter = "on"  # I like it\ndefault_model = "local/other-model"\n\n'
            '[providers.lab]\nkind = "openai-compatible"\n'
        )
        said(notebook, "%llm use local/m --default")
        assert 'default_model = "local/m"' in file.read_text()
        assert "# mine" in file.read_text()
        assert "is not in" in (text := said(notebook, "%llm config unset timeout"))
        assert "restart" not in text, "nothing has changed"
        assert "after its restart" in said(notebook, "%llm config unset default_model")
    finally:
        file.unlink()


def test_info_tells_what_the_server_tells(notebook: Kernel) -> None:
    text = said(notebook, "%llm info local/other-model")
    assert "local/other-model" in text
    assert "prompts stay on this machine" in text
    embedded = said(notebook, "%llm info embedded/smollm2-135m")
    assert "98 MB" in embedded
    assert said(notebook, "%llm info").splitlines()[0].split()[-1] == "local/m"


def test_last_gives_the_figures_or_the_answer_itself(notebook: Kernel, server: ModelServer) -> None:
    assert notebook.run("%llm last").error[0] == "SessionError: there is no answer yet"
    server.next(answer("Hello"))
    notebook.run("%chat hi")
    text = said(notebook, "%llm last")
    assert "local/m (local)" in text
    assert "stop" in text
    assert notebook.run("%llm last -o it").outputs == []
    assert notebook.value("it.text") == "Hello"


def test_last_knows_an_answer_without_memory(notebook: Kernel, server: ModelServer) -> None:
    """The last answer is the one that was shown last, whoever asked."""
    notebook.run("%chat one")
    notebook.run("%%llm\ntwo")
    assert notebook.run("%llm last -o it").status == "ok"
    assert notebook.value("it.text") == "Heard: two"


def test_config_shows_the_settings_and_their_file(notebook: Kernel) -> None:
    text = said(notebook, "%llm config")
    assert str(notebook.home / "config.toml") in text
    assert "(not there yet)" in text
    assert "openai-compatible" in text
    notebook.run('%config LLMMagics.footer = "off"')
    (footer,) = [line.split() for line in said(notebook, "%llm config").splitlines() if line.startswith("footer")]
    assert footer[:2] == ["footer", "off"]


def test_help_lists_every_command(notebook: Kernel) -> None:
    text = said(notebook, "%llm help")
    for _, usage, meaning in COMMANDS.values():
        assert usage in text
        assert meaning in text


@pytest.mark.parametrize(
    ("command", "beginning"),
    [
        ("%llm --help", "  %llm  "),
        ("%llm ?", "  %llm  "),
        ("%llm dash --help", "%llm dash [NAME]"),
        ("%llm dash?", "%llm dash [NAME]"),
        ("%llm help dash", "%llm dash [NAME]"),
        ("%llm use -h", "%llm use MODEL"),
        ("%llm session export?", "%llm session [VERB"),
        ("%llm host stop embedded --help", "%llm host start"),
        ("%llm purge --help --yes", "%llm purge --older"),
        ("%chat --help", "Ask a language model"),
        ("%chat -q -h what?", "Ask a language model"),
        ("%compare --help", "Ask several models"),
        ("%%chat --help", "Ask a language model"),
        ("%%chat ?", "Ask a language model"),
        ("%%llm -h\nwhat?", "%llm shows what runs"),
        ("%%compare --help", "Ask several models"),
        ('%%compare -m "local/m --help" -m local/m\nwhat?', "Ask several models"),
    ],
)
def test_help_comes_wherever_it_is_asked_for_and_nobody_else_is_asked(
    notebook: Kernel, server: ModelServer, command: str, beginning: str
) -> None:
    ran = notebook.run(command)
    assert ran.status == "ok", ran.error
    assert ran.printed.startswith(beginning)
    assert server.chats == []


def test_the_help_of_a_command_lists_its_verbs_and_options(notebook: Kernel) -> None:
    text = said(notebook, "%llm session --help")
    assert "  %llm session export [FILE]  " in text
    assert "  --yes, -y  " in text


def test_a_question_mark_in_a_name_is_no_question(notebook: Kernel) -> None:
    assert said(notebook, "%llm session name why new?") == "This conversation is called why new?.\n"


@pytest.mark.parametrize("magic", ["%compare?", "%%compare?", "%chat?", "%llm?"])
def test_ipythons_own_help_knows_every_magic(notebook: Kernel, magic: str) -> None:
    pages = [one["data"]["text/plain"] for one in notebook.run(magic).reply["payload"]]
    assert "Options" in pages[0]


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("%llm why is the sky blue", "%chat why is the sky blue"),
        ("%llm why is the sky blue?", "%chat why is the sky blue?"),
        ("%llm modles", "Did you mean %llm models?"),
        ("%llm rset", "Did you mean %llm reset?"),
        ("%llm use", "%llm models"),
        ("%llm use --defalt local/m", "--default"),
        ("%llm models everything", "--remote"),
        ("%llm info two words", "takes one model"),
        ("%llm pull", "%llm pull smollm2-135m"),
        ("%llm again what", "%chat"),
        ("%llm last x", "-o NAME"),
        ("%llm config x", "there is no setting"),
        ("%llm reset x", "takes nothing"),
        ("%llm status x", "takes nothing"),
        ("%llm providers x", "takes nothing"),
        ("%llm hosts x", "%llm host start NAME"),
        ("%llm hist", "Did you mean %llm history?"),
        ("%llm dash chat status", "%llm dash status opens that one"),
        ("%llm dash chat now", "%llm dash chat opens that one"),
        ("%llm dash chats now", "There are: status"),
        ("%llm help modles", "Did you mean %llm models?"),
        ("%llm config set session.system Answer briefly.", '%llm config set session.system "Answer briefly."'),
        ("%llm config set session.system say 'a \"b\"'", """%llm config set session.system 'say a "b"'"""),
        ("%compare -m local/m what?", "%%compare"),
        ("%%compare", "two models"),
        ("%%chat", "Write the prompt on the lines below"),
        ("%%chat -q it ?\nhi", "takes only options"),
        ("%llm session name", "needs a name"),
        ("%llm host", "takes start, stop, restart, logs and a name\n%llm hosts lists the names"),
        ("%llm host start", "There are: embedded."),
        ("%llm host pause local", "start, stop, restart, logs"),
        ("%llm host start nobody", "there is no host 'nobody'"),
        ("%llm connect", "%llm providers lists them"),
        ("%llm connect nobody", "there is no provider 'nobody'"),
        ("%llm disconnect", "%llm providers lists them"),
        ("%llm events all", "%llm events -n 50"),
        ("%llm events -n none", "%llm events -n 50"),
        ("%llm doctor everything", "--live"),
        ("%llm pull local/m", "cannot fetch models"),
    ],
)
def test_what_is_no_command_is_answered_with_what_to_type(
    notebook: Kernel, server: ModelServer, command: str, hint: str
) -> None:
    ran = notebook.run(command)
    assert ran.status == "error"
    assert kinds(ran.outputs) == ["error"]
    assert 1 <= len(ran.error) <= 3
    assert hint in "\n".join(ran.error)
    assert server.chats == []


@pytest.mark.live
def test_pull_of_what_is_here_says_so_in_one_output(tmp_path: Path, weights: Path) -> None:
    from live import place

    place(weights, tmp_path)
    with Kernel(tmp_path) as kernel:
        kernel.load()
        ran = kernel.run("%llm pull smollm2-135m")
        assert ran.status == "ok", ran.error
        assert len(ran.outputs) == 1
        assert "embedded/smollm2-135m is here" in ran.outputs[0]["data"]["text/plain"]
        assert "135 million" in kernel.run("%llm info embedded/smollm2-135m").printed


def test_a_look_can_be_interrupted(tmp_path: Path) -> None:
    gate = Gate()
    from servers.scripted import ScriptedServer

    with ScriptedServer([gate]) as silent:
        environment = {
            "LLM_JUPYTER_PROVIDERS__LOCAL__KIND": "openai-compatible",
            "LLM_JUPYTER_PROVIDERS__LOCAL__BASE_URL": silent.base_url,
        }
        with Kernel(tmp_path, environment) as kernel:
            kernel.load()
            ran = kernel.start("%llm models")
            assert gate.reached.wait(5)
            kernel.interrupt()
            kernel.finish(ran)
    assert ran.status == "error"
    assert len(ran.error) == 1
    assert ran.error[0].startswith("AnswerInterrupted: ")
