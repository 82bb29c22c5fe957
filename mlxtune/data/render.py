"""An example into token ids and the mask of those to be learned.

Knows one tokenizer and its chat template; nothing of batches or the network. The mask follows what generation will
see: an answer's targets are the tokens after the rendering of the turns before it with the generation prompt, up to
and with the token that ends the turn. Hence the policies, which hold for every template:

- The rendering of the turns before an answer must be the beginning of the rendering of the whole, in text and in
  tokens. A template that rewrites earlier turns has no right mask and is refused, row by row.
- Where the text fits and the tokens do not (one token spans prompt and answer), the parts are encoded one by one,
  because generation too gets its prompt encoded alone.
- Targets are the answer's words, its calls of tools and its end of turn: the first special token that the template puts
  after them (after calls, which special tokens may close: the first that ends a plain answer or a generation). A
  template that changes the words, leaves out a turn, a call or the tools, or writes more than white space around an
  answer's words is refused. Signs that it puts around calls are learned with them.
- After the last end of turn the row ends. A template that ends no turn gets an EOS token after the last answer.
- A generation prompt is whatever the template adds for one; nothing, where it adds nothing.
- An answer with thoughts, in `Message.thinking` or at the beginning of its words as ``<think>``, is asked for with
  `enable_thinking=True`, every other with `enable_thinking=False`, in training and for prompts alike. The thoughts
  of an answer that is learned are learned, with the template's signs around them; a template without a place for
  `Message.thinking` is refused. Thoughts of answers before it are context, of which a template keeps what it keeps in
  generation: most drop them.
- A turn of the weight 0 is not learned, and what comes after the last one learned is left out.

The price is two renderings an answer. `Renderer.render_stream` gives what `Renderer.render` gives, and encodes many
rows at once. `Renderer.encode_prompt` and `Renderer.encode_text` are what every prompt goes through, so that an answer
is asked for as it was trained.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlxtune.data.example import Example, Message
from mlxtune.data.faults import Fault
from mlxtune.data.rendering.answer_spans import AnswerFinder, Turn, thinks
from mlxtune.data.rendering.chat_text import OTHER_TEMPLATE, ChatTemplate
from mlxtune.data.rendering.token_cuts import Cut, Encoder, JoinedError
from mlxtune.errors import DataError
from mlxtune.recipe.choices import TrainOn

BATCH_CHARACTERS = 500_000
"""About so much text is encoded at once."""
BATCH_ROWS = 2_000


@dataclass(frozen=True, eq=False, slots=True)
class Rendered:
    """One row as the network meets it.

    ``token_ids`` [L] int32; ``is_target`` [L] bool: position i is learned, predicted from i - 1, hence never i = 0;
    ``weight`` [L] float32: how much it counts in the loss, more than 0 where it is learned; None where all count alike.
    """

    token_ids: np.ndarray
    is_target: np.ndarray
    where: str
    weight: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class _Draft:
    """A row before it is encoded.

    ``cuts`` are the places in ``text`` before, between and after ``turns``, but for the text's end; ``weights`` those
    of the turns. ``learned`` says which of its tokens are targets: the turns' or all. A text has no turns.
    """

    where: str
    text: str
    turns: tuple[Turn, ...] = ()
    weights: tuple[float, ...] = ()
    everything: bool = True
    bos: bool = False
    """BOS goes before it, where the tokenizer puts it before any text."""

    @property
    def cuts(self) -> list[int]:
        return [cut for turn in self.turns for cut in (turn.start, turn.end)][:-1]


class Renderer:
    """A tokenizer with what has to be known of it for every row.

    Args:
        tokenizer: mlx_lm's TokenizerWrapper.

    ``special`` has the special tokens, id by spelling; ``before`` BOS, if the tokenizer puts it before any text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special = special_tokens(tokenizer)
        # What the tokenizer puts before any text: BOS or nothing. An EOS that some put after it is ours to add.
        before = tokenizer.encode("")
        self.before: list[int] = before[:1] if before and before[0] == tokenizer.bos_token_id else []
        self._eos: set[int] = set(tokenizer.eos_token_ids)
        self._encoder = Encoder(tokenizer)
        self._template = ChatTemplate(tokenizer)
        self._finder = AnswerFinder(self._template, self.special, self._eos)

    def render(self, example: Example, train_on: TrainOn) -> Rendered:
        """The tokens and targets of one example; of a preference, those of the better answer.

        Args:
            train_on: the answers that are targets; `everything` makes each token one but the first, prompt and
                template included. Text rows are always targets throughout. No answer of the weight 0 is one.

        Raises: DataError, if the chat template refuses the row or gives no right mask for it, there is no chat
            template for a chat row, the tokenizer has no EOS token where one is needed, or an answer holds a token
            that ends a turn.
        """
        draft = self._draft(example, train_on)
        return self._targets(draft, *self._tokens(draft, self._cut(draft)))

    def render_pair(self, example: Example, train_on: TrainOn) -> tuple[Rendered, Rendered]:
        """Both sides of a preference, the better first. They have the same tokens before the last answer.

        Raises: DataError, as `render` does, and if the template renders the prompt of one otherwise than of the other.
        """
        worse = replace(example, messages=(*example.messages[:-1], *example.rejected))
        drafts = [self._draft(side, train_on) for side in (example, worse)]
        tokens = [self._tokens(draft, self._cut(draft)) for draft in drafts]
        prompts = [ids[: spans[-1][0]].tolist() for ids, spans in tokens]
        if prompts[0] != prompts[1]:
            raise DataError(
                "the chat template begins the two answers otherwise, as where one has thoughts and one has none",
                where=example.where,
                remedy=f"give both answers thoughts, or neither, or {OTHER_TEMPLATE}",
            )
        chosen, rejected = (self._targets(*row) for row in zip(drafts, *zip(*tokens, strict=True), strict=True))
        return chosen, rejected

    def render_stream(
        self, examples: Iterable[Example | Fault], train_on: TrainOn
    ) -> Iterator[tuple[Example, Rendered] | Fault]:
        """What `render` gives for each of ``examples``, in order, and a fault in place of each that it refuses.

        Some rows are read ahead: they are encoded together, in a thread beside that of the caller.
        """
        with ThreadPoolExecutor(1, "encode") as pool:
            waiting: tuple[list[Any], Future[Any]] | None = None
            for rows in self._drafts(examples, train_on):
                drafts = [row[1] for row in rows if not isinstance(row, Fault)]
                asked = [draft.text for draft in drafts], [draft.cuts for draft in drafts]
                encoded = pool.submit(self._encoder.encode_all, *asked)
                if waiting is not None:
                    yield from self._finish(*waiting)
                waiting = rows, encoded
            if waiting is not None:
                yield from self._finish(*waiting)

    def _drafts(
        self, examples: Iterable[Example | Fault], train_on: TrainOn
    ) -> Iterator[list[tuple[Example, _Draft] | Fault]]:
        """Rows that are not encoded yet, so many at a time as make a batch."""
        rows: list[tuple[Example, _Draft] | Fault] = []
        characters = 0
        for example in examples:
            if isinstance(example, Fault):
                rows.append(example)
            else:
                try:
                    draft = self._draft(example, train_on)
                except DataError as error:
                    rows.append(_fault(error))
                else:
                    rows.append((example, draft))
                    characters += len(draft.text)
            if characters >= BATCH_CHARACTERS or len(rows) >= BATCH_ROWS:
                yield rows
                rows, characters = [], 0
        if rows:
            yield rows

    def _finish(
        self, rows: list[tuple[Example, _Draft] | Fault], encoded: "Future[list[Cut | JoinedError]]"
    ) -> Iterator[tuple[Example, Rendered] | Fault]:
        cuts = iter(encoded.result())
        for row in rows:
            if isinstance(row, Fault):
                yield row
                continue
            example, draft = row
            cut = next(cuts)
            try:
                if isinstance(cut, JoinedError):
                    raise _joined(draft.where)
                rendered = self._targets(draft, *self._tokens(draft, cut))
            except DataError as error:
                yield _fault(error)
            else:
                yield example, rendered

    def prompt(self, example: Example, answer_after: str | None) -> tuple[list[int], str]:
        """What a model is given to answer one example, and the answer that the row has.

        A chat ends before its last answer, with the generation prompt; an answer that calls tools is what the template
        writes of it. A text row begins with its preface, and ends after the first occurrence of ``answer_after`` in its
        own text; its answer is the rest, without white space at the ends.

        Raises: DataError, if a text row has no ``answer_after`` or nothing after it; and as `render` does.
        """
        if example.kind == "text":
            text = self._text_prompt(example, answer_after)
            return self.encode_text(text), (example.preface + example.text)[len(text) :].strip()
        *before, answer = example.messages
        if self._is_joined(example):
            return self.encode_text(before[0].content), answer.content
        ids = self.encode_prompt(before, example.where, tools=example.tools, thinking=thinks(answer))
        if not answer.tool_calls:
            return ids, answer.content
        told = self._finder.read(example.messages, example.tools, example.where)
        turn = self._finder.find(told, len(before))
        return ids, told.text[turn.start : turn.stop].strip()

    def answered(self, example: Example, answer: str, answer_after: str | None) -> tuple[list[int], list[int]]:
        """The tokens of what `prompt` gives a model, and those of ``answer`` after it: what would be learned of it, its
        end included, if it were the row's own.

        Raises: DataError, as `prompt` does.
        """
        if example.kind == "text":
            prompt = self._text_prompt(example, answer_after)
            own = (example.preface + example.text)[len(prompt) :]
            space_before, space_after = own[: len(own) - len(own.lstrip())], own[len(own.rstrip()) :]
            text = prompt + space_before + answer + space_after
            turn = Turn(len(prompt), len(text), len(text), ends=False)
            draft = _Draft(example.where, text, (turn,), (1.0,), everything=False, bos=True)
        else:
            messages = (*example.messages[:-1], Message("assistant", answer))
            draft = self._draft(replace(example, messages=messages), "last_completion")
        ids, spans = self._tokens(draft, self._cut(draft))
        start = spans[-1][0]
        return ids[:start].tolist(), ids[start:].tolist()

    def encode_prompt(
        self,
        messages: Sequence[Message],
        where: str,
        *,
        tools: Sequence[dict[str, Any]] = (),
        thinking: bool = False,
    ) -> list[int]:
        """The tokens of ``messages`` and the generation prompt.

        Args:
            tools: the functions that the model may call.
            thinking: whether the answer is to be one with thoughts.

        Raises: DataError, if the template refuses.
        """
        text = self._template.text(messages, where, tools=tools, generation_prompt=True, thinking=thinking)
        return self._encoder.ids(text)

    def encode_text(self, text: str) -> list[int]:
        """The tokens of ``text``, after BOS where the tokenizer adds one; never a second BOS."""
        ids = self._encoder.ids(text)
        return ids if ids[:1] == self.before else self.before + ids

    def _text_prompt(self, example: Example, answer_after: str | None) -> str:
        """What of a text row stands before its answer, its preface first. Raises: DataError, as of `prompt`."""
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
        return example.preface + before + found

    def _is_joined(self, example: Example) -> bool:
        """Whether the row is a prompt and its completion in sequence, as without a template to put between them."""
        return example.kind == "prompt_completion" and not self.tokenizer.has_chat_template

    def _draft(self, example: Example, train_on: TrainOn) -> _Draft:
        if example.kind == "text":
            return _Draft(example.where, example.text, bos=True)
        messages = example.messages
        answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
        if train_on != "everything":
            wanted = answers if train_on == "completions" else answers[-1:]
            # an answer that nothing is learned of still says where the row ends
            answers = [i for i in wanted if messages[i].weight > 0] or answers[-1:]
            messages = messages[: answers[-1] + 1]
        else:
            answers = [i for i in answers if messages[i].weight != 1 or i == answers[-1]]
        weights = tuple(messages[i].weight for i in answers)
        everything = train_on == "everything"
        if self._is_joined(example):
            prompt, completion = (message.content for message in messages)
            end = len(prompt) + len(completion)
            turn = Turn(len(prompt), end, end, ends=False)
            return _Draft(example.where, prompt + completion, (turn,), weights, everything, bos=True)
        told = self._finder.read(messages, example.tools, example.where)
        turns = tuple(self._finder.find(told, i) for i in answers)
        return _Draft(example.where, told.text[: turns[-1].end], turns, weights, everything)

    def _cut(self, draft: _Draft) -> Cut:
        try:
            return self._encoder.encode(draft.text, draft.cuts)
        except JoinedError as error:
            raise _joined(draft.where) from error

    def _tokens(self, draft: _Draft, cut: Cut) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """The tokens of a row, and the span of tokens of each turn."""
        ids, shift = cut.ids, 0
        if draft.bos and ids[:1].tolist() != self.before:
            ids, shift = np.array([*self.before, *ids.tolist()], np.int32), len(self.before)
        spans = [(start + shift, end + shift) for start, end in zip(cut.ends[0::2], cut.ends[1::2], strict=False)]
        if not draft.turns or not draft.turns[-1].ends:
            ids = self._with_eos(ids, draft.where)
            spans[-1:] = [(start, len(ids)) for start, _ in spans[-1:]]
        self._refuse_early_ends(ids, spans, draft)
        return ids, spans

    def _targets(self, draft: _Draft, ids: np.ndarray, spans: Sequence[tuple[int, int]]) -> Rendered:
        weight = np.full(len(ids), 1.0 if draft.everything else 0.0, np.float32)
        for (start, end), counts in zip(spans, draft.weights, strict=True):
            weight[start:end] = counts
        weight[:1] = 0
        is_target = weight > 0
        alike = all(counts in (0, 1) for counts in draft.weights)
        return Rendered(ids, is_target, draft.where, None if alike else weight)

    def _refuse_early_ends(self, ids: np.ndarray, spans: Sequence[tuple[int, int]], draft: _Draft) -> None:
        """Raises: DataError, if an answer holds one of the tokens that end answers before its end."""
        ending = {int(ids[end - 1]) for (_, end), turn in zip(spans, draft.turns, strict=True) if turn.ends}
        ending |= self._eos
        last = len(spans) - 1
        for number, ((start, end), turn) in enumerate(zip(spans, draft.turns, strict=True)):
            early = ending.intersection(ids[start : end - 1 if turn.ends or number == last else end].tolist())
            if early:
                raise DataError(
                    f"an answer holds {self.tokenizer.decode([early.pop()])!r}, which ends the model's turn",
                    where=draft.where,
                    remedy="take it out of the answer: the end of the turn is put there for you",
                )

    def _with_eos(self, ids: np.ndarray, where: str) -> np.ndarray:
        if len(ids) and int(ids[-1]) in self._eos:
            return ids
        eos = self.tokenizer.eos_token_id
        if eos is None:
            eos = min(self._eos, default=None)
        if eos is None:
            raise DataError(
                "the tokenizer has no EOS token, so the model could not learn to stop",
                where=where,
                remedy="name eos_token in the model's tokenizer_config.json",
            )
        return np.append(ids, np.int32(eos))


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """The tokens that are no text: id by spelling, those that end generation included."""
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = {tokenizer.convert_ids_to_tokens(i): i for i in tokenizer.eos_token_ids}
    return special | {
        text: i for text, i in ends.items() if text and tokenizer.encode(text, add_special_tokens=False) == [i]
    }


def _joined(where: str) -> DataError:
    return DataError(
        "the tokenizer joins the end of the prompt and the beginning of the answer into one token",
        where=where,
        remedy="put a line end between prompt and answer, or " + OTHER_TEMPLATE,
    )


def _fault(error: DataError) -> Fault:
    return Fault(str(error.where), error.message, "rendering", error.remedy or "")
