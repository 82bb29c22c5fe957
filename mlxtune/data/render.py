"""An example into token ids and the mask of those to be learned.

Knows one tokenizer and its chat template; nothing of batches or the network. The mask follows what generation will
see: an answer's targets are the tokens after the rendering of the turns before it with the generation prompt, up to
and with the token that ends the turn. Hence the policies, which hold for every template:

- The rendering of the turns before an answer must be the beginning of the rendering of the whole, in text and in
  tokens. A template that rewrites earlier turns has no right mask and is refused, row by row.
- Where the text fits and the tokens do not (one token spans prompt and answer), the parts are encoded one by one,
  because generation too gets its prompt encoded alone.
- Targets are the answer's words and its end of turn: the first special token that the template puts after them. A
  template that changes the words, leaves out a turn, or writes more than white space around them is refused.
- After the last end of turn the row ends. A template that ends no turn gets an EOS token after the last answer.
- Thinking is off: templates are asked with `enable_thinking=False`, in training and for prompts alike.

The price is two or more encodings a row. `Renderer.encode_prompt` and `Renderer.encode_text` are what every prompt goes
through, so that an answer is asked for as it was trained.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlxtune.data.normalize import Example, Message
from mlxtune.errors import DataError
from mlxtune.recipe.choices import TrainOn

OTHER_TEMPLATE = "choose another chat template (data.chat_template), or another model"


@dataclass(frozen=True, eq=False, slots=True)
class Rendered:
    """One row as the network meets it.

    ``token_ids`` [L] int32; ``is_target`` [L] bool: position i is learned, predicted from i - 1, hence never i = 0.
    """

    token_ids: np.ndarray
    is_target: np.ndarray
    where: str


@dataclass(frozen=True, slots=True)
class _Turn:
    """Where an answer stands in a rendering: characters ``start`` to ``end``, its end of turn included if ``ends``."""

    start: int
    end: int
    ends: bool


class Renderer:
    """A tokenizer with what has to be known of it for every row.

    Args:
        tokenizer: mlx_lm's TokenizerWrapper.

    ``special`` has the special tokens, id by spelling; ``before`` BOS, if the tokenizer puts it before any text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special = special_tokens(tokenizer)
        texts = sorted(self.special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        # What the tokenizer puts before any text: BOS or nothing. An EOS that some put after it is ours to add.
        before = tokenizer.encode("")
        self.before: list[int] = before[:1] if before and before[0] == tokenizer.bos_token_id else []

    def render(self, example: Example, train_on: TrainOn) -> Rendered:
        """The tokens and targets of one example.

        Args:
            train_on: the answers that are targets; `everything` makes each token one but the first, prompt and
                template included. Text rows are always targets throughout.

        Raises: DataError, if the chat template refuses the row or gives no right mask for it, there is no chat
            template for a chat row, the tokenizer has no EOS token where one is needed, or an answer holds a token
            that ends a turn.
        """
        if example.kind == "text":
            ids = self._with_eos(self.encode_text(example.text), example.where)
            spans = [(0, len(ids))]
        elif example.kind == "prompt_completion" and not self.tokenizer.has_chat_template:
            ids, spans = self._join(example)
        else:
            answers = [i for i, message in enumerate(example.messages) if message.role == "assistant"]
            ids, spans = self._chat(example, answers if train_on == "completions" else answers[-1:])
        token_ids = np.array(ids, np.int32)
        is_target = np.zeros(len(ids), bool)
        for start, end in spans if train_on != "everything" else [(0, len(ids))]:
            is_target[start:end] = True
        is_target[:1] = False
        return Rendered(token_ids, is_target, example.where)

    def prompt(self, example: Example, answer_after: str | None) -> tuple[list[int], str]:
        """What a model is given to answer one example, and the answer that the row has.

        A chat ends before its last answer, with the generation prompt. A text row ends after the first occurrence of
        ``answer_after``; its answer is the rest, without white space at the ends.

        Raises: DataError, if a text row has no ``answer_after`` or nothing after it; and as `render` does.
        """
        if example.kind == "text":
            if not answer_after:
                raise DataError(
                    "a text row does not say where its prompt ends",
                    where=example.where,
                    remedy='set answer_after in the task, such as "\\nA:"',
                )
            before, found, after = example.text.partition(answer_after)
            if not found or not after.strip():
                raise DataError(
                    f"the row has no answer after {answer_after!r}",
                    where=example.where,
                    remedy="mend the row, or set answer_after in the task to what stands before every answer",
                )
            return self.encode_text(before + found), after.strip()
        *before, answer = example.messages
        if example.kind == "prompt_completion" and not self.tokenizer.has_chat_template:
            return self.encode_text(before[0].content), answer.content
        return self.encode_prompt(before, example.where), answer.content

    def encode_prompt(self, messages: Sequence[Message], where: str) -> list[int]:
        """The tokens of ``messages`` and the generation prompt. Raises: DataError, if the template refuses."""
        return self._encode(self._template(messages, where, generation_prompt=True))

    def encode_text(self, text: str) -> list[int]:
        """The tokens of ``text``, after BOS where the tokenizer adds one; never a second BOS."""
        ids = self._encode(text)
        return ids if ids[:1] == self.before else self.before + ids

    def _encode(self, text: str) -> list[int]:
        # verbose=False: a row longer than the model's context is no matter for the tokenizer's own warning.
        return self.tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def _template(self, messages: Sequence[Message], where: str, *, generation_prompt: bool) -> str:
        if not self.tokenizer.has_chat_template:
            raise DataError(
                "the model has no chat template, and a chat row needs one",
                where=where,
                remedy="set data.chat_template (instruction fits every model), or choose an instruction-tuned model",
            )
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=generation_prompt, enable_thinking=False
            )
        except Exception as error:  # a template is a stranger's program, and fails in any way
            raise DataError(
                f"the chat template refuses the messages: {str(error) or type(error).__name__}",
                where=where,
                remedy=f"give the row the roles and order that the template knows, or {OTHER_TEMPLATE}",
            ) from error

    def _chat(self, example: Example, answers: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens up to the end of the last of ``answers``, and the span of tokens of each."""
        messages, where = example.messages, example.where
        text = self._template(messages, where, generation_prompt=False)
        for i, message in enumerate(messages):
            if message.content.strip() not in text:
                raise DataError(
                    f"the chat template leaves out or changes the words of {_name(messages, i)}",
                    where=where,
                    remedy=f"give the row only what the template renders, or {OTHER_TEMPLATE}",
                )
        turns = [self._turn(messages, i, text, where) for i in answers]
        cuts = [cut for turn in turns for cut in (turn.start, turn.end)]
        ids, ends = self._encode_in_parts(text[: cuts[-1]], cuts[:-1], where)
        spans = list(zip(ends[0::2], ends[1::2], strict=True))
        self._refuse_early_ends(ids, spans, turns, where)
        if not turns[-1].ends:
            ids = self._with_eos(ids, where)
            spans[-1] = (spans[-1][0], len(ids))
        return ids, spans

    def _join(self, example: Example) -> tuple[list[int], list[tuple[int, int]]]:
        """A prompt and its completion in sequence, where there is no template to put between them."""
        prompt, completion = (message.content for message in example.messages)
        ids, (start, _) = self._encode_in_parts(prompt + completion, [len(prompt)], example.where)
        before = [] if ids[:1] == self.before else self.before
        ids = self._with_eos(before + ids, example.where)
        span = (len(before) + start, len(ids))
        self._refuse_early_ends(ids, [span], [_Turn(0, 0, ends=True)], example.where)
        return ids, [span]

    def _turn(self, messages: Sequence[Message], i: int, text: str, where: str) -> _Turn:
        """Where the answer ``messages[i]`` and its end of turn stand in ``text``, the rendering of all messages."""
        before = self._template(messages[:i], where, generation_prompt=True)
        done = text if i == len(messages) - 1 else self._template(messages[: i + 1], where, generation_prompt=False)
        if not done.startswith(before):
            raise _rewritten(messages, i, where)
        start = len(before)
        content = messages[i].content
        for words in (content, content.strip()):
            at = done.find(words, start)
            if at >= 0 and not done[start:at].strip():
                break
        else:
            raise DataError(
                f"the chat template changes the words of {_name(messages, i)}, or puts others before them",
                where=where,
                remedy=f"take out of the answer what the template strips (such as thoughts), or {OTHER_TEMPLATE}",
            )
        end = at + len(words)
        match = self._special.search(done, end)
        ends = match is not None and not done[end : match.start()].strip()
        if match is not None and ends:
            end = match.end()
        if not text.startswith(done[:end]):
            raise _rewritten(messages, i, where)
        return _Turn(start, end, ends)

    def _encode_in_parts(self, text: str, cuts: Sequence[int], where: str) -> tuple[list[int], list[int]]:
        """The tokens of ``text``, and how many of them stand before each cut and the end.

        Raises: DataError, if no tokens of ``text`` can be split there.
        """
        ids = self._encode(text)
        heads = [self._encode(text[:cut]) for cut in cuts]
        if all(ids[: len(head)] == head for head in heads):
            return ids, [*(len(head) for head in heads), len(ids)]
        parts = [self._encode(text[start:end]) for start, end in itertools.pairwise([0, *cuts, len(text)])]
        joined = list(itertools.chain.from_iterable(parts))
        if self.tokenizer.decode(joined) != self.tokenizer.decode(ids):
            raise DataError(
                "the tokenizer joins the end of the prompt and the beginning of the answer into one token",
                where=where,
                remedy="put a line end between prompt and answer, or " + OTHER_TEMPLATE,
            )
        return joined, list(itertools.accumulate(map(len, parts)))

    def _refuse_early_ends(
        self, ids: list[int], spans: Sequence[tuple[int, int]], turns: Sequence[_Turn], where: str
    ) -> None:
        ending = {ids[end - 1] for (_, end), turn in zip(spans, turns, strict=True) if turn.ends}
        ending |= self.tokenizer.eos_token_ids
        for (start, end), turn in zip(spans, turns, strict=True):
            early = ending.intersection(ids[start : end - 1 if turn.ends else end])
            if early:
                raise DataError(
                    f"an answer holds {self.tokenizer.decode([early.pop()])!r}, which ends the model's turn",
                    where=where,
                    remedy="take it out of the answer: the end of the turn is put there for you",
                )

    def _with_eos(self, ids: list[int], where: str) -> list[int]:
        if ids and ids[-1] in self.tokenizer.eos_token_ids:
            return ids
        eos = self.tokenizer.eos_token_id
        if eos is None:
            eos = min(self.tokenizer.eos_token_ids, default=None)
        if eos is None:
            raise DataError(
                "the tokenizer has no EOS token, so the model could not learn to stop",
                where=where,
                remedy="name eos_token in the model's tokenizer_config.json",
            )
        return [*ids, eos]


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """The tokens that are no text: id by spelling, those that end generation included."""
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = {tokenizer.convert_ids_to_tokens(i): i for i in tokenizer.eos_token_ids}
    return special | {
        text: i for text, i in ends.items() if text and tokenizer.encode(text, add_special_tokens=False) == [i]
    }


def _name(messages: Sequence[Message], i: int) -> str:
    return f"messages[{i}] ({messages[i].role})"


def _rewritten(messages: Sequence[Message], i: int, where: str) -> DataError:
    if i < len(messages) - 1:
        remedy = "set data.train_on to last_completion, or give each answer a row of its own"
    else:
        remedy = f"take thoughts out of the answer (templates are asked with thinking off), or {OTHER_TEMPLATE}"
    return DataError(
        "the chat template rewrites earlier turns, so no mask of targets is right: "
        f"up to {_name(messages, i)}, the row does not read as generation would have it",
        where=where,
        remedy=remedy,
    )
