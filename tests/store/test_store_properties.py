"""Whatever is kept comes back, whatever is typed can be looked for, and every place has one version that counts."""

from __future__ import annotations

import operator
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from store.samples import answer, ask, ids, session, storing, turn
from store.strategies import any_text, sessions, turns

from llm_jupyter.store import SessionRecord, Store, TurnRecord, TurnState


@given(turns)
def test_any_turn_comes_back_as_it_was_kept(record: TurnRecord) -> None:
    with storing(None) as (store, _):
        store.add(record)
        kept = msgspec.structs.replace(record, version=1, is_current=True)
        assert store.turn(record.session, record.id) == kept
        assert store.versions(record.session, record.slot) == [kept]
        assert store.before(record.session, None, limit=1) == ([] if record.left_out else [kept])
        store.fork(record.session, session(record.session + "'"))
        assert store.turn(record.session + "'", record.id) == msgspec.structs.replace(
            kept, session=record.session + "'"
        )


@given(sessions)
def test_any_conversation_comes_back_as_it_was_kept(record: SessionRecord) -> None:
    with storing(None) as (store, _):
        for _ in range(2):
            store.save_session(record)
            assert store.session(record.id) == record
            assert store.sessions_of(kernel=record.kernel, notebook=record.notebook, ids=[record.id]) == [record]
        if record.name is not None:
            assert store.named(record.name) == record


@given(turns, any_text | st.text("\"*+-:^(){}ANDORT \0'", max_size=8))
def test_nothing_that_is_typed_into_a_search_is_an_error(record: TurnRecord, words: str) -> None:
    with storing(None) as (store, _):
        store.save_session(session(record.session))
        store.add(record)
        store.search(words)


@given(st.text(st.characters(categories=["L", "Nd"], max_codepoint=0x24F), min_size=1, max_size=9))
def test_a_word_of_a_prompt_is_found_by_its_beginning(word: str) -> None:
    with storing(None) as (store, _):
        store.save_session(session())
        ask(store, "a", 1.0, prompt=f"{word} and more")
        assert ids([hit.turn for hit in store.search(word)]) == ["a"]
        assert store.search(f"{word} something else") == []


class Conversations(RuleBasedStateMachine):
    """Versions come, go back, and are copied, in any order; a list of plain values says what must be there."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(None)
        self.model: dict[str, list[dict[str, Any]]] = {}
        self.count = 0

    def teardown(self) -> None:
        self.store.close()

    @rule(target=names)
    def begin(self) -> str:
        name = self._new()
        self.store.save_session(session(name))
        self.model[name] = []
        return name

    @rule(target=names, source=names)
    def fork(self, source: str) -> str:
        name = self._new()
        self.store.fork(source, session(name))
        self.model[name] = [dict(entry) for entry in self.model[source]]
        return name

    @rule(name=consumes(names))
    def delete(self, name: str) -> None:
        assert self.store.delete(name)
        del self.model[name]

    @rule(name=names, slot=st.sampled_from("xyz"), position=st.integers(1, 4), answers=st.booleans())
    def add(self, name: str, slot: str, position: int, answers: bool) -> None:
        identity = self._new()
        self.store.add(turn(identity, float(position), session=name, slot=slot))
        if answers:
            self.store.answered(name, identity, 1, answer("text"), TurnState.COMPLETE)
        of_slot = [entry for entry in self.model[name] if entry["slot"] == slot]
        for entry in of_slot:
            entry["is_current"] = False
        self.model[name].append(
            {"id": identity, "slot": slot, "position": float(position), "left_out": "", "is_current": True,
             "version": len(of_slot) + 1, "answered": answers}
        )  # fmt: skip

    @rule(name=names, data=st.data())
    def restore(self, name: str, data: st.DataObject) -> None:
        if not self.model[name]:
            return
        chosen = data.draw(st.sampled_from(self.model[name]))
        self.store.restore(name, chosen["id"])
        (current,) = (entry for entry in self._current(name) if entry["slot"] == chosen["slot"])
        place = {key: current[key] for key in ("position", "left_out")}
        current["is_current"] = False
        chosen.update(place, is_current=True)

    @rule(name=names, slot=st.sampled_from("xyz"), position=st.integers(1, 4))
    def move(self, name: str, slot: str, position: int) -> None:
        self.store.move(name, {slot: float(position)})
        for entry in self._current(name):
            if entry["slot"] == slot:
                entry["position"] = float(position)

    @rule(name=names, slots=st.sets(st.sampled_from("xyz")), left_out=st.sampled_from(["", "gone"]))
    def mark(self, name: str, slots: set[str], left_out: str) -> None:
        self.store.mark(name, slots, left_out=left_out)
        for entry in self._current(name):
            if entry["slot"] in slots:
                entry["left_out"] = left_out

    @rule(name=names)
    def settle(self, name: str) -> None:
        assert self.store.settle(name) <= len(self.model[name])

    @invariant()
    def every_slot_has_one_version_that_counts(self) -> None:
        for name, entries in self.model.items():
            for slot in {entry["slot"] for entry in entries}:
                versions = self.store.versions(name, slot)
                wanted = [entry for entry in entries if entry["slot"] == slot]
                assert [(one.id, one.version, one.is_current) for one in versions] == [
                    (entry["id"], entry["version"], entry["is_current"]) for entry in wanted
                ]
                assert sum(one.is_current for one in versions) == 1

    @invariant()
    def what_counts_stands_in_order(self) -> None:
        assert {record.id for record in self.store.sessions()} == set(self.model)
        for name in self.model:
            current = sorted(self._current(name), key=operator.itemgetter("position"))
            places = [(place.id, place.position, place.left_out) for place in self.store.places(name)]
            assert sorted(places) == sorted((entry["id"], entry["position"], entry["left_out"]) for entry in current)
            assert [position for _, position, _ in places] == [entry["position"] for entry in current]
            nearest = self.store.before(name, None, limit=9)
            assert [one.id for one in reversed(nearest)] == [one for one, _, left_out in places if not left_out]
            found = self.store.session(name)
            assert found is not None
            assert found.turns == sum(entry["answered"] and not entry["left_out"] for entry in current)

    def _new(self) -> str:
        self.count += 1
        return f"n{self.count}"

    def _current(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.model[name] if entry["is_current"]]


TestConversations = Conversations.TestCase
TestConversations.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
