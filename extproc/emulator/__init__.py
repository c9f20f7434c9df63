"""An OpenAI-compatible server that stands in for vLLM: real token counts, real refusals, made-up responses."""

from extproc.emulator.server import Emulator, ReceivedRequest
from extproc.emulator.settings import EmulatorSettings

__all__ = ["Emulator", "EmulatorSettings", "ReceivedRequest"]
