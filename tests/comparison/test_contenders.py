"""Who is compared, and what tells them apart."""

from __future__ import annotations

from typing import Any

import pandas
import pytest
from contests import labels
from hypothesis import given
from hypothesis import strategies as st

from llm_jupyter.comparison import Contender, contenders_of
from llm_jupyter.errors import InvalidInputError
from llm_jupyter.types import GenerationOptions

settings = st.fixed_dictionaries(
    {}, optional={
        "temperature": st.floats(0, 2), "seed": st.integers(0, 3), "system": st.sampled_from(["Be brief.", "Be long."]),
        "label": st.sampled_from(["a", "a (2)", "b"]), "stop": st.sampled_from(["x", ("x", "y")]),
    },
)  # fmt: skip
models = st.lists(
    st.one_of(
        st.sampled_from(["a", "b", "a (2)"]),
        st.builds(lambda model, own: {"model": model, **own}, st.sampled_from(["a", "b"]), settings),
    ),
    min_size=1,
)


@given(models)
def test_every_contender_has_a_label_of_its_own_and_keeps_its_place(given_models: list[Any]) -> None:
    found = contenders_of(given_models)
    assert [one.model for one in found] == [one if isinstance(one, str) else one["model"] for one in given_models]
    assert len({one.label for one in found}) == len(given_models)
    assert contenders_of(found) == found


def test_one_model_under_several_settings_is_told_apart_by_those_in_which_they_differ() -> None:
    one, other = {"model": "m", "temperature": 0, "seed": 1}, {"model": "m", "temperature": 1.5, "seed": 1}
    assert labels(one, other) == ["m temperature=0", "m temperature=1.5"]
    assert labels(one, "m") == ["m temperature=0 seed=1", "m"]
    assert labels("m", {"model": "m", "system": "Answer as a pirate, at length."}) == [
        "m", 'm system="Answer as a pirate, at…'
    ]  # fmt: skip
    assert labels(one, "n") == ["m", "n"]
    assert labels("m", "m", "m") == ["m", "m (2)", "m (3)"]
    assert labels("/home/somebody/models/tiny.gguf", "m") == ["tiny.gguf", "m"]


def test_what_holds_for_all_holds_where_a_contender_says_nothing_else() -> None:
    everybody = GenerationOptions(temperature=0.5, max_tokens=9)
    one, other = contenders_of(
        ["m", {"model": "n", "temperature": 0, "system": "Be long."}], options=everybody, system="Be brief."
    )
    assert (one.options, one.system) == (everybody, "Be brief.")
    assert (other.options, other.system) == (GenerationOptions(temperature=0, max_tokens=9), "Be long.")
    assert contenders_of({"model": "m"}) == contenders_of("m") == (Contender("m", "m"),)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([], "no model to compare"),
        ([""], "has no name"),
        ([{"temperature": 1}], "has no name"),
        ([("m", {"temperature": 0})], "a model to compare has to be a text, not a value of type tuple"),
        ([{"model": 3}], "has to be a text, not a value of type int"),
        (pandas.DataFrame({"model": ["m"], "seed": [1]}), "models cannot be a whole table"),
        ([{"model": "m", "temprature": 1}], "Did you mean temperature"),
        ([{"model": "m", "temperature": "hot"}], "a setting cannot be so"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_few_lines(wrong: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        contenders_of(wrong)
    assert len(caught.value.lines()) <= 3
