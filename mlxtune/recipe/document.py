"""The text of a recipe into plain values, with the place of every key.

YAML 1.2, so that ``no`` is a word; JSON is part of it. The document is composed into nodes, which know lines and
columns, and the plain values are built here: mappings, lists, text, numbers, true, false and null, nothing else. Tags
and merge keys get no meaning. Knows no key of a recipe. The price is a second walk, which also bounds what a file with
aliases of aliases may grow to.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxtune.errors import RecipeError

if TYPE_CHECKING:
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

MAX_BYTES = 200_000
MAX_VALUES = 10_000
MAX_DEPTH = 20

Key = tuple[str | int, ...]
"""Where a value stands: keys of mappings and positions in lists, from the top."""

_TAG = "tag:yaml.org,2002:"
_AS_WRITTEN = {_TAG + name for name in ("str", "timestamp", "merge", "value")}
_CONSTRUCTED = {_TAG + name for name in ("null", "bool", "int", "float")}


@dataclass(frozen=True)
class Place:
    """Where something is said: a file or an override, and line and column in a file, from 1."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Document:
    """Plain values, and the place of each key; ``()`` is the whole."""

    values: Any
    places: dict[Key, Place]


def read_document(path: Path) -> tuple[str, Document]:
    """The text of the file, and what it says.

    Raises: RecipeError, with file and line, for a file that cannot be read, is not UTF-8 or YAML, says a key twice, is
        no mapping, or is far larger than a recipe.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"the recipe cannot be read: {error.strerror}", where=path) from None
    if len(content) > MAX_BYTES:
        raise RecipeError(
            f"the recipe has {len(content):,} bytes; at most {MAX_BYTES:,} are read",
            where=path,
            remedy="is this the data? a recipe names the data's file in data.train",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError("the recipe is not UTF-8", where=f"{path}:{line}", remedy="save it as UTF-8") from None
    # YAML reads some letters in quotes otherwise than JSON does (U+2028 is a line break, U+007F is forbidden); written
    # as escapes, both read them alike.
    readable = text.encode("ascii", "backslashreplace").decode().replace("\x7f", "\\x7f")
    document = parse(readable if path.suffix == ".json" else text, str(path))
    if not isinstance(document.values, dict):
        found = "is empty" if document.values is None else "is no mapping of keys to values"
        raise RecipeError(f"the recipe {found}", where=path, remedy="begin with `name:`, `model:` and `data:`")
    return text, document


def parse(text: str, source: str) -> Document:
    """What one YAML document says; None if it says nothing.

    Args:
        source: what to call the text in places.

    Raises: RecipeError, if it is not YAML, or says more than plain values.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
        builder = _Builder(source, yaml)
        return Document(None if root is None else builder.build(root, (), 0), builder.places)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Place(source, mark.line + 1, mark.column + 1) if mark else source
        said = ", ".join(part for part in (error.context, error.problem) if part)
        remedy = "indent with spaces, never with tabs" if "'\\t'" in said else "quote text that has special characters"
        raise RecipeError(f"not YAML: {said}", where=where, remedy=remedy) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError(f"a character that YAML forbids: {error.character:#06x}", where=f"{source}:{line}") from None
    except RecursionError:
        raise RecipeError("the recipe is nested far too deeply", where=source) from None


@dataclass
class _Builder:
    """Plain values from nodes, counting them: an alias is a node met again, and its values count again."""

    source: str
    yaml: "YAML"
    places: dict[Key, Place] = field(default_factory=dict)
    count: int = 0

    def build(self, node: "Node", key: Key, depth: int) -> Any:
        from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

        self.places.setdefault(key, self.place_of(node) if key else Place(self.source))
        self.count += 1
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise RecipeError("too many or too deeply nested values for a recipe", where=self.place_of(node))
        if isinstance(node, ScalarNode):
            return self.scalar(node)
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self.mapping(node, key, depth)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.build(item, (*key, index), depth + 1) for index, item in enumerate(node.value)]
        raise self.refuse_tag(node)

    def mapping(self, node: "MappingNode", key: Key, depth: int) -> dict[str, Any]:
        from ruamel.yaml.nodes import ScalarNode

        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self.place_of(key_node)
            if not isinstance(key_node, ScalarNode):
                raise RecipeError("a key must be plain text", where=place)
            name = self.text(key_node)
            here = (*key, name)
            if name in values:
                first = self.places[here]
                raise RecipeError(
                    f"the key {name} stands here a second time", where=place, remedy=f"the first: {first}"
                )
            self.places[here] = place
            values[name] = self.build(value_node, here, depth + 1)
        return values

    def scalar(self, node: "ScalarNode") -> Any:
        if node.tag in _AS_WRITTEN:
            return self.text(node)
        if node.tag not in _CONSTRUCTED:
            raise self.refuse_tag(node)
        try:
            return self.yaml.constructor.construct_object(node)
        except (ValueError, KeyError):
            raise RecipeError(
                f"{node.value!r} is no {node.tag.removeprefix(_TAG)}", where=self.place_of(node)
            ) from None

    def text(self, node: "ScalarNode") -> str:
        """The text of a node; JSON writes rare letters as two escapes, which YAML leaves apart."""
        try:
            return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise RecipeError("an escape that is half a letter", where=self.place_of(node)) from None

    def refuse_tag(self, node: "Node") -> RecipeError:
        return RecipeError(f"the tag {node.tag[:80]} has no meaning in a recipe", where=self.place_of(node))

    def place_of(self, node: "Node") -> Place:
        return Place(self.source, node.start_mark.line + 1, node.start_mark.column + 1)
