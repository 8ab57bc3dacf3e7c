"""Offline mode: answers are kept by what was asked, and given again where nobody can be asked."""

from llm_jupyter.cache.answers import WHOLE, Kept, Piece, Recorder
from llm_jupyter.cache.asking import Answerer, Asking, age_in_words
from llm_jupyter.cache.disk import AnswerCache, CacheStats
from llm_jupyter.cache.offline import MODES, LLMCache, OfflineStatus
from llm_jupyter.cache.recording import Asker, Recording
from llm_jupyter.cache.request import Request, Who, key

__all__ = [
    "MODES",
    "WHOLE",
    "AnswerCache",
    "Answerer",
    "Asker",
    "Asking",
    "CacheStats",
    "Kept",
    "LLMCache",
    "OfflineStatus",
    "Piece",
    "Recorder",
    "Recording",
    "Request",
    "Who",
    "age_in_words",
    "key",
]
