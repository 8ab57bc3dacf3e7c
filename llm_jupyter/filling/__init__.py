"""The variables of a prompt: `{name}` becomes the value, and whatever else has braces passes through untouched."""

from llm_jupyter.filling.prompt import FilledPrompt as FilledPrompt
from llm_jupyter.filling.prompt import FilledValue as FilledValue
from llm_jupyter.filling.prompt import fill as fill
from llm_jupyter.filling.prompt import filled_line as filled_line
