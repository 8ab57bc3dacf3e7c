"""Conversations: what was said, in which order, and what the model is to see next.

A turn belongs to the cell that asked. When that cell runs again its turn is replaced, and the model sees what stands
before it in the document. A turn that failed never reaches the model; one that was interrupted does, marked. All of it is
stored before it leaves, so that a conversation outlives its kernel.
"""

from llm_jupyter.sessions.answering import Answering as Answering
from llm_jupyter.sessions.answering import Asked as Asked
from llm_jupyter.sessions.cells import CellPlace as CellPlace
from llm_jupyter.sessions.identity import Whereabouts as Whereabouts
from llm_jupyter.sessions.manager import LLMSessionManager as LLMSessionManager
from llm_jupyter.sessions.services import Services as Services
from llm_jupyter.sessions.session import LLMSession as LLMSession
from llm_jupyter.sessions.states import SessionState as SessionState
from llm_jupyter.sessions.turns import INTERRUPTED_MARK as INTERRUPTED_MARK
