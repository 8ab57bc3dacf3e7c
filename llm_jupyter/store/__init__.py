"""Conversations on disk: `records` are the values, `Store` keeps them in one SQLite file, or in memory where it cannot."""

from llm_jupyter.store.records import AnswerRecord as AnswerRecord
from llm_jupyter.store.records import Examination as Examination
from llm_jupyter.store.records import Fault as Fault
from llm_jupyter.store.records import Filled as Filled
from llm_jupyter.store.records import Hit as Hit
from llm_jupyter.store.records import Place as Place
from llm_jupyter.store.records import Purged as Purged
from llm_jupyter.store.records import SessionConfig as SessionConfig
from llm_jupyter.store.records import SessionRecord as SessionRecord
from llm_jupyter.store.records import TurnRecord as TurnRecord
from llm_jupyter.store.records import TurnState as TurnState
from llm_jupyter.store.store import Store as Store
