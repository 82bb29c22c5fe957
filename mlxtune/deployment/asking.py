"""How a model wants to be asked: the shape that training gave its prompts, and the tokens of a prompt in that shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlxtune.data.example import Message
from mlxtune.data.render import Renderer
from mlxtune.deployment.prompts import Prompt
from mlxtune.errors import DataError
from mlxtune.runs.prompting import Prompting


@dataclass(frozen=True, eq=False)
class Asking:
    """The shape of one model's prompts."""

    renderer: Renderer
    raw: bool
    """Prompts are sent as plain text, without a chat template."""
    system: str | None
    """The system message of a prompt that has none of its own."""
    thinking: bool = False
    """It is asked for answers with thoughts before them, as it was trained."""

    def encode(self, prompt: Prompt) -> list[int]:
        """The tokens of ``prompt``.

        Raises: DataError, if it is empty, the chat template refuses it, or it has turns where the model takes plain
            text.
        """
        if not (prompt.text if self.raw else prompt.text.strip()):
            raise DataError("the prompt is empty", where=prompt.where, remedy="write something to answer")
        if self.raw:
            if len(prompt.messages) > 1 or prompt.tools:
                raise DataError(
                    "the model takes plain text, without a chat template, and this prompt has turns, a system message "
                    "or tools",
                    where=prompt.where,
                    remedy="give a single text",
                )
            return self.renderer.encode_text(prompt.text)
        turns = self.turns(prompt.messages)
        return self.renderer.encode_prompt(turns, prompt.where, tools=prompt.tools, thinking=self.thinking)

    def turns(self, messages: Sequence[Message]) -> Sequence[Message]:
        """``messages`` after the system message of training, where they have none of their own."""
        if self.system is None or messages[0].role == "system":
            return messages
        return (Message("system", self.system), *messages)


def asking_of(tokenizer: Any, prompting: Prompting, *, raw: bool | None = None) -> Asking:
    """How the model with ``tokenizer`` is asked: as ``raw`` says, else as in training, else by whether it has a chat
    template.
    """
    decided = raw if raw is not None else prompting.raw
    if decided is None:
        decided = not tokenizer.has_chat_template
    return Asking(Renderer(tokenizer), decided, prompting.system, prompting.thinking)
