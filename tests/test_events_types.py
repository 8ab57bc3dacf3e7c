"""What a type checker knows of listeners: the kinds that were asked for."""

import re
from pathlib import Path

from mypy import api

TEXT = """
from llm_jupyter.events import Event, EventBus, ModelDeleted, ModelLoaded, ModelPulled

bus, heard = EventBus(), list[Event]()

def loaded(event: ModelLoaded) -> None: ...
def either(event: ModelLoaded | ModelDeleted) -> None: ...
async def awaited(event: ModelLoaded) -> None: ...

bus.subscribe(loaded, ModelLoaded)
bus.subscribe(awaited, ModelLoaded, replay=True)
bus.subscribe(either, ModelLoaded)
bus.subscribe(either, ModelLoaded, ModelDeleted)
bus.subscribe(lambda event: event.seconds, ModelLoaded)
bus.subscribe(heard.append)
bus.subscribe(heard.append, ModelLoaded, ModelDeleted, ModelPulled, ModelLoaded)
bus.subscribe(loaded)  # wrong
bus.subscribe(loaded, ModelDeleted)  # wrong
bus.subscribe(awaited, ModelDeleted)  # wrong
bus.subscribe(loaded, ModelLoaded, ModelDeleted)  # wrong
bus.subscribe(loaded, ModelLoaded, ModelDeleted, ModelPulled, ModelLoaded)  # wrong

everything: list[Event] = bus.listen().take()
some: list[ModelLoaded] = bus.listen(ModelLoaded).take()
two: list[ModelLoaded | ModelDeleted] = bus.listen(ModelLoaded, ModelDeleted, replay=True).take()
others: list[ModelDeleted] = bus.listen(ModelLoaded).take()  # wrong
past: list[ModelLoaded] = bus.history(ModelLoaded)
more: list[ModelLoaded] = bus.history()  # wrong
published: ModelDeleted = bus.publish(ModelDeleted(provider="p", model="m"))

async def read() -> float:
    async for event in bus.listen(ModelLoaded):
        return event.seconds
    return 0.0
"""


def test_callbacks_and_feeds_are_typed_by_the_kinds_they_ask_for(tmp_path: Path) -> None:
    file = tmp_path / "listeners.py"
    file.write_text(TEXT)
    options = ["--strict", "--follow-imports=silent", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    found, trouble, _ = api.run([*options, str(file)])
    wrong = [number for number, line in enumerate(TEXT.splitlines(), 1) if line.endswith("# wrong")]
    assert trouble == ""
    assert (
        sorted({int(line) for line in re.findall(r"^\S+listeners\.py:(\d+): error", found, re.MULTILINE)}) == wrong
    ), found
