"""The APIs that vLLM serves, one module each: request types, JSON responses and streamed responses."""

from typing import Final

from extproc.emulator.apis.base import Api
from extproc.emulator.apis.chat import ChatApi
from extproc.emulator.apis.completions import CompletionsApi
from extproc.emulator.apis.embeddings import EmbeddingsApi
from extproc.emulator.apis.messages import MessagesApi
from extproc.emulator.apis.responses import ResponsesApi

__all__ = ["APIS", "Api"]

APIS: Final[tuple[Api, ...]] = (ChatApi(), CompletionsApi(), EmbeddingsApi(), ResponsesApi(), MessagesApi())
