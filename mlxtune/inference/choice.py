"""Which of some labels a network finds likeliest after a prompt: the exact argmax of log p(label, end | prompt).

Each label is a row of tokens that ends with an end token, so the labels are the leaves of a tree of tokens. A token's
log-probability is never above 0: hence what was read of a label bounds the whole of it from above. So the tree is
searched from its likeliest branch on, and ends where no branch left can still beat the best label that was read in
full; most labels are never read. What all prompts begin with is read once, every prompt once, and only the tokens of
labels again. A model that knows its task reads little more than the label that it chooses; one that does not finds many
labels alike, and reads more of them.

Other shapes of the same work round otherwise in the last bits, so of two labels that are as likely as rounding can tell
either may be chosen, here and in any other order of work.
"""

import heapq
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import mlx.core as mx
import numpy as np

from mlxtune.inference.likelihood import Reader, log_probabilities, target_losses, target_states
from mlxtune.inference.read_on import Place, evaluate, read_on
from mlxtune.inference.shared_prefix import common_prefix_length
from mlxtune.progress import Progress, silent

T = TypeVar("T")

PROMPT_POSITIONS = 4096
"""Of prompts that are read together, and kept: B * (P + L)."""
LABEL_POSITIONS = 16384
"""Of what stands before labels that are read together; a layer of it is in memory at a time."""


@dataclass(frozen=True)
class Chosen:
    """Of one prompt: the label's number, the nats of it and its end, and how many tokens of labels were read."""

    label: int
    log_probability: float
    tokens_read: int


def choose(
    reader: Reader,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    *,
    progress: Progress = silent,
) -> list[Chosen]:
    """The likeliest label after each prompt.

    Args:
        prompts: token ids, at least one each.
        labels: token ids of each, the end token included; no two alike, and none the beginning of another.
        progress: told of prompts done.

    Raises: ValueError, for labels that are no leaves of a tree.
    """
    tree = make_tree(labels)
    chosen: list[Chosen | None] = [None] * len(prompts)
    done = 0
    progress("choose: prompts", done, len(prompts))
    if reader.shares_prefixes:
        found = _search(reader, prompts, tree)
    else:
        found = ((i, _likeliest(score_labels(reader, prompt, labels), labels)) for i, prompt in enumerate(prompts))
    for i, one in found:
        chosen[i] = one
        done += 1
        progress("choose: prompts", done, len(prompts))
    return [one for one in chosen if one is not None]


def score_labels(reader: Reader, prompt: Sequence[int], labels: Sequence[Sequence[int]]) -> np.ndarray:
    """The log-probability of every label after one prompt, [C] float64 nats, each read in full."""
    prefix = list(prompt[:-1]) if reader.shares_prefixes else []
    begin = list(prompt[len(prefix) :])
    length = len(begin) + max(map(len, labels)) - 1
    token_ids = np.zeros((len(labels), length), np.int32)
    index: list[int] = []
    for i, label in enumerate(labels):
        row = [*begin, *label[:-1]]
        token_ids[i, : len(row)] = row
        index += [i * length + len(begin) - 1 + position for position in range(len(label))]
    states = target_states(reader, mx.array(prefix, mx.int32), mx.array(token_ids), mx.array(index))
    nats = target_losses(reader, states, mx.array([token for label in labels for token in label]))[0]
    owner = np.repeat(np.arange(len(labels)), [len(label) for label in labels])
    return -np.bincount(owner, np.array(nats, np.float64), minlength=len(labels))


def _likeliest(scores: np.ndarray, labels: Sequence[Sequence[int]]) -> Chosen:
    best = int(np.argmax(scores))
    return Chosen(best, float(scores[best]), sum(map(len, labels)))


@dataclass(frozen=True, eq=False)
class Branch:
    """A stretch of the labels' tree on which nothing parts: ``path`` are its tokens from the root on, of which those
    from ``start`` on are its own. It ends in a ``label``, by number, or in ``children``. ``first_label`` is the lowest
    number of a label at its ends.
    """

    path: tuple[int, ...]
    start: int
    label: int | None
    first_label: int
    children: list["Branch"] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[int, ...]:
        """What has to be read to know all of it: a label's last token is only foretold."""
        return self.path if self.label is None else self.path[:-1]


def make_tree(labels: Sequence[Sequence[int]]) -> Branch:
    """The root, which has no tokens of its own. Raises: ValueError, if a label is empty or begins another."""
    rows = [tuple(label) for label in labels]
    root = Branch((), 0, None, 0)
    ahead = [(root, list(range(len(rows))))]
    while ahead:  # no recursion: each of a thousand labels may begin like the one before it
        parent, numbers = ahead.pop()
        depth = len(parent.path)
        groups: dict[int, list[int]] = {}
        for i in numbers:
            if len(rows[i]) == depth:
                raise ValueError("a label is empty, or the beginning of another, or the same")
            groups.setdefault(rows[i][depth], []).append(i)
        for group in groups.values():
            branch = _stretch(rows, group, depth)
            parent.children.append(branch)
            if branch.label is None:
                ahead.append((branch, group))
    return root


def _stretch(rows: Sequence[tuple[int, ...]], numbers: Sequence[int], start: int) -> Branch:
    """The branch from ``start`` on of the labels ``numbers``, which have their next token in common."""
    first = rows[numbers[0]]
    if len(numbers) == 1:
        return Branch(first, start, numbers[0], numbers[0])
    end = start + 1
    while all(len(rows[i]) > end and rows[i][end] == first[end] for i in numbers):
        end += 1
    return Branch(first[:end], start, None, min(numbers))


@dataclass
class _Search:
    """The search for one prompt's label: ``ahead`` are the branches of which the first token is known, likeliest first;
    ``best`` is what the likeliest ``label`` so far comes to.
    """

    ahead: list[tuple[float, int, int, Branch]] = field(default_factory=list)
    best: float = -math.inf
    label: int = sys.maxsize
    tokens_read: int = 0
    rounds: int = 0

    def note(self, label: int, score: float) -> None:
        """A label is known in full; of two that are alike the first counts."""
        if (-score, label) < (-self.best, self.label):
            self.best, self.label = score, label

    def meet(self, branch: Branch, score: float) -> None:
        """The first token of ``branch`` is known: ``score`` bounds all of it."""
        if branch.label is not None and len(branch.path) - branch.start == 1:
            self.note(branch.label, score)
        else:
            heapq.heappush(self.ahead, (-score, branch.first_label, len(branch.path), branch))

    def next_branches(self) -> list[tuple[Branch, float]]:
        """What to read now: twice as many branches each time, so that who needs many does not take as many rounds."""
        wanted: list[tuple[Branch, float]] = []
        while self.ahead and len(wanted) < 2**self.rounds:
            bound, first_label, _, branch = self.ahead[0]
            if (bound, first_label) > (-self.best, self.label):  # nothing ahead can be better
                self.ahead.clear()
                break
            heapq.heappop(self.ahead)
            wanted.append((branch, -bound))
        self.rounds += 1
        return wanted


def _search(reader: Reader, prompts: Sequence[Sequence[int]], tree: Branch) -> Iterator[tuple[int, Chosen]]:
    """The number of each prompt and what is chosen, in the order in which they are done."""
    shared = _shared_length(prompts)
    begun = None
    if shared:
        states, begun = read_on(reader, mx.array([list(prompts[0][:shared])], mx.int32))
        evaluate(states[:, -1:], begun)
    for rows in _alike_in_length(prompts, PROMPT_POSITIONS):
        token_ids = mx.array([list(prompts[i][shared:]) for i in rows], mx.int32)
        states, place = read_on(reader, token_ids, begun)
        last = states[:, -1]
        evaluate(last, place)
        searches = [_Search() for _ in rows]
        firsts = [child.path[0] for child in tree.children]
        for search, scores in zip(searches, _log_probabilities_of(reader, last, [firsts] * len(rows)), strict=True):
            for child, score in zip(tree.children, scores, strict=True):
                search.meet(child, float(score))
        while wanted := [
            (i, branch, score) for i, search in enumerate(searches) for branch, score in search.next_branches()
        ]:
            for part in _parts(wanted, max(1, LABEL_POSITIONS // (place.length + 1))):
                _read_branches(reader, place, part, searches)
        for i, search in zip(rows, searches, strict=True):
            yield i, Chosen(search.label, search.best, search.tokens_read)


def _read_branches(
    reader: Reader, place: Place, wanted: Sequence[tuple[int, Branch, float]], searches: Sequence[_Search]
) -> None:
    """Read some branches, each after the row of ``place`` that its search is of, and tell the searches."""
    length = max(len(branch.inputs) for _, branch, _ in wanted)
    token_ids = np.zeros((len(wanted), length), np.int32)
    index: list[int] = []
    asked: list[tuple[int, ...]] = []
    for row, (_, branch, _) in enumerate(wanted):
        token_ids[row, : len(branch.inputs)] = branch.inputs
        own = range(branch.start + 1, len(branch.path))
        index += [row * length + position - 1 for position in own]
        asked += [(branch.path[position],) for position in own]
        if branch.label is None:
            index.append(row * length + len(branch.path) - 1)
            asked.append(tuple(child.path[child.start] for child in branch.children))
    # The place after them is not kept: a layer's keys and values are freed when it has run.
    states = read_on(reader, mx.array(token_ids), place.of([i for i, _, _ in wanted]))[0]
    states = states.reshape(-1, states.shape[-1])[mx.array(index)]
    found = iter(_log_probabilities_of(reader, states, asked))
    for i, branch, score in wanted:
        search = searches[i]
        search.tokens_read += len(branch.inputs)
        for _ in range(branch.start + 1, len(branch.path)):
            score += float(next(found)[0])  # noqa: PLW2901 - a sum that goes on
        if branch.label is not None:
            search.note(branch.label, score)
            continue
        for child, after in zip(branch.children, next(found), strict=True):
            search.meet(child, score + float(after))


def _log_probabilities_of(reader: Reader, states: mx.array, asked: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    """The log-probabilities, never above 0, of the tokens that are ``asked`` of each of ``states``, [T, D] or [T, V].

    A network that says no number says that a token cannot be.
    """
    start = 0
    for logits in log_probabilities(reader, states):
        part = asked[start : start + logits.shape[0]]
        start += logits.shape[0]
        width = max(map(len, part))
        ids = np.array([[*tokens, *[0] * (width - len(tokens))] for tokens in part], np.int32)
        picked = np.array(mx.minimum(0.0, mx.take_along_axis(logits, mx.array(ids), axis=-1)), np.float64)
        picked[np.isnan(picked)] = -np.inf
        for row, tokens in zip(picked, part, strict=True):
            yield row[: len(tokens)]


def _shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, less one that each is read from."""
    if len(prompts) < 2:  # noqa: PLR2004 - a prompt alone shares nothing
        return 0
    shortest = min(map(len, prompts))
    return min(common_prefix_length([np.asarray(ids) for ids in prompts]), shortest - 1)


def _alike_in_length(prompts: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """The numbers of prompts of one length, at most ``most`` tokens together; the shortest first."""
    groups: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(i)
    for length, rows in sorted(groups.items()):
        yield from _parts(rows, max(1, most // length))


def _parts(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
