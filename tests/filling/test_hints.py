"""What is said about a placeholder that was not filled in."""

from __future__ import annotations

from typing import Any

import pytest

from llm_jupyter.filling import fill
from llm_jupyter.filling.hints import MOST_HINTS, MOST_NAMES


class Broken:
    """An object that fails in every way."""

    @property
    def property(self) -> str:
        raise OSError("the disk is gone")

    def __getitem__(self, key: object) -> str:
        raise ZeroDivisionError

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        ("{nmae}", "{nmae} stays as it is: there is no variable nmae. Did you mean {name}?"),
        ("{Name}", "{Name} stays as it is: there is no variable Name. Did you mean {name}?"),
        ("{prices[0].total}", "{prices[0].total} stays as it is: there is no variable prices. Did you mean {price[0].total}?"),
        ("{name.nothing}", "{name.nothing} stays as it is: reading it raised AttributeError."),
        ("{numbers[k]}", "{numbers[k]} stays as it is: reading it raised KeyError."),
        ("{name[99]}", "{name[99]} stays as it is: reading it raised IndexError."),
        ("{name[k]}", "{name[k]} stays as it is: reading it raised TypeError."),
        ("{broken}", "{broken} stays as it is: reading it raised ValueError."),
        ("{broken.property}", "{broken.property} stays as it is: reading it raised OSError."),
        ("{broken[0]}", "{broken[0]} stays as it is: reading it raised ZeroDivisionError."),
        ("{numbers[0]}", "{numbers[0]} stays as it is: reading it raised ValueError."),
    ],
)  # fmt: skip
def test_what_cannot_be_filled_in_stays_with_a_hint_that_says_why(prompt: str, hint: str) -> None:
    names = {"name": "Ada", "price": [], "broken": Broken(), "numbers": {0: 10**5000}}
    filled = fill(f"before {prompt} after {prompt}", names)
    assert filled.text == f"before {prompt} after {prompt}"
    assert filled.filled == ()
    assert filled.hints == (hint,)


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("{city}", {"name": 1}),
        ("{df}", {"dg": 1}),
        ("{exot} {inn} {Ouut} {get_ipithon} {quitt}", {"exit": 1, "In": 1, "Out": 1, "get_ipython": 1, "quit": 1}),
        ("{hiddn}", {"_hidden": 1}),
        ("`{nmae}` ${nmae}$ {{nmae}} {nmae!r}", {"name": 1}),
        ("{" + "long" * 100_000 + "}", {f"long{number}": 1 for number in range(1000)}),
    ],
)
def test_an_unknown_name_that_is_like_no_variable_gets_no_hint(prompt: str, names: dict[str, Any]) -> None:
    assert fill(prompt, names).hints == ()


CODE = "{name} stays as it is: between backticks it is code. Without them it is filled in."
FORMULA = r"{name} stays as it is: between two $ it is mathematics. \$ is a plain dollar."


@pytest.mark.parametrize(
    ("prompt", "hints"),
    [
        ("Describe the column `{name}` and `{name}`", (CODE,)),
        ("set path=$A={name} and B$", (FORMULA,)),
        ("echo $FOO/{name}/$BAR", (FORMULA,)),
        ("`{nmae}` `{{name}}` `{name!r}` `{name()}`", ()),
        ("```\n{name}\n``` ``{name}`` $${name}$$", ()),
        ("`a ${name} b`", ()),
        (r"$x_{name} = y^{name} + \sqrt[2]{name} + \frac{name}{name}$ $`{nobody}`$", ()),
    ],
)
def test_a_known_name_that_chance_may_have_made_code_or_mathematics_gets_a_hint(
    prompt: str, hints: tuple[str, ...]
) -> None:
    filled = fill(prompt, {"name": "Ada"})
    assert (filled.text, filled.filled, filled.hints) == (prompt, (), hints)


def test_a_name_that_is_filled_in_elsewhere_is_still_said_to_stay_where_it_is_code() -> None:
    filled = fill("`{name}` is {name}", {"name": "Ada"})
    assert (filled.text, filled.hints) == ("`{name}` is Ada", (CODE,))


@pytest.mark.parametrize(
    "expression",
    [
        "name.upper()", "name!r", "name:>10", "n+1", "n - 1", "n*2", "n[n+1]", "name[0:1]", "n:.2f", "n:>{n}", "n!r:>{n}",
    ],
)  # fmt: skip
def test_what_only_an_f_string_would_fill_in_gets_a_hint(expression: str) -> None:
    prompt = f"before {{{expression}}} after {{{expression}}}"
    filled = fill(prompt, {"name": "Ada", "n": 1})
    assert filled.text == prompt
    assert filled.hints == (f"{{{expression}}} stays as it is: only names, attributes and keys are filled in.",)


@pytest.mark.parametrize(
    "prompt",
    [
        "{nobody.upper()} {nobody!r}", "{n: 1} {n:[1]} {n:'x'}", "{name, n} {name,n}", "{name of the city}", "{name!important}", "{name._hidden}", "{name.}", "{name[]}", "{name[k}",
        r"x_{n+1} x^{n-1} \frac{n-1}{n+1}", "${n+1} {{n+1}} {{n + 1}}", "`{n+1}` $a {n+1}$", "```\n{n+1}\n```", "{n+1", "{n+\n1}",
    ],
)  # fmt: skip
def test_braces_of_prose_and_of_other_languages_get_no_hint(prompt: str) -> None:
    filled = fill(prompt, {"name": "Ada", "n": 1})
    assert (filled.text, filled.hints) == (prompt, ())


def test_there_are_only_a_few_hints() -> None:
    filled = fill("{nam} {nmae} {Name} {names} {name.nothing}", {"name": 1})
    assert len(filled.hints) == MOST_HINTS
    unlike = " ".join(f"{{unlike{number}}}" for number in range(MOST_NAMES))
    assert fill(unlike + "{nmae}", {"name": 1}).hints == ()


def test_a_long_expression_is_shortened_in_its_hint() -> None:
    (hint,) = fill("{name" + "[0]" * 1000 + "}", {"name": ()}).hints
    assert len(hint) < 120


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
def test_a_value_whose_code_wants_to_end_the_kernel_stays_with_a_hint(kind: type[BaseException]) -> None:
    class Ends:
        @property
        def now(self) -> str:
            raise kind

        def __str__(self) -> str:
            raise kind

    hints = [f"{{ends{end}}} stays as it is: reading it raised {kind.__name__}." for end in ("", ".now")]
    assert fill("{ends} {ends.now} {{ends.now}}", {"ends": Ends()}).hints == tuple(hints)


def test_an_interrupt_while_a_value_is_read_gets_through() -> None:
    class Slow:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill("{slow}", {"slow": Slow()})
