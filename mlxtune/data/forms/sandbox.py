"""The part of Jinja that a template in a recipe may use, and what it may cost.

Jinja's own sandbox keeps a template from Python's inside; it does not keep it from running for ever or filling the
memory (``range`` in ``range``, ``"a" * 10**9``, a list of itself twice, forty times over). So here nothing is allowed
that is not listed: no macros, imports, blocks or powers, few filters and methods. Each of what is left takes time in
proportion to what it reads and makes, and all of it counts: so many characters and list items a row, and seconds, are
its `Budget`, looked at with each step of a loop and each value made. Nothing is worked out when a template is compiled,
where no budget would count it.

Source: https://jinja.palletsprojects.com/en/stable/sandbox/#security-considerations
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.runtime import LoopContext, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from mlxtune.data.forms.sandbox_filters import FILTERS, RefusedError, as_filter, largest_of_replace
from mlxtune.models.sandbox_budget import Budget, TooMuchError, size_of

LONGEST = 100_000
"""Characters of a template."""

SHOWN = 80
"""Characters of what is undefined that a fault shows: names, mostly."""

DEEPEST = 100
"""Levels of nesting in a template."""

NODES: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.CondExpr),
    *(nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Name),
    *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Call, nodes.Compare, nodes.Operand),
    *(nodes.And, nodes.Or, nodes.Not, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
    *(nodes.Neg, nodes.Pos, nodes.Concat),
)
"""What a template may be made of."""

TESTS = (
    *("defined", "undefined", "none", "string", "number", "mapping", "sequence", "boolean", "integer", "float"),
    *("true", "false", "odd", "even"),
)

METHODS: dict[type, tuple[str, ...]] = {
    str: (
        *("strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "split", "splitlines"),
        *("startswith", "endswith", "replace", "find", "count", "removeprefix", "removesuffix"),
    ),
    dict: ("items", "keys", "values", "get"),
    LoopContext: ("index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem", "nextitem"),
}
"""Attributes, by the type that has them; others do not exist here."""


class Compiled:
    """A template that may be rendered; not by two threads at once."""

    def __init__(self, environment: "_Sandbox", template: jinja2.Template, fields: frozenset[str]) -> None:
        self._environment, self._template = environment, template
        self.fields = fields

    def render(self, fields: Mapping[str, Any]) -> str:
        """The text of a row's ``fields``.

        Raises: ValueError, with a sentence for the user that quotes no text; TooMuchError, likewise.
        """
        self._environment.budget = budget = Budget.for_input(fields)
        pieces: list[str] = []
        try:
            for piece in self._template.generate({"row": fields, **fields}):
                budget.spend(len(piece))
                pieces.append(piece)
        except jinja2.UndefinedError as error:
            raise ValueError(f"{error}"[:SHOWN]) from error
        except RefusedError as error:
            raise ValueError(str(error)) from error
        except TooMuchError:
            raise
        except Exception as error:  # a template is a stranger's program, and fails in any way
            raise ValueError(f"it fails with a {type(error).__name__}") from error
        return "".join(pieces)


def compile_template(source: str) -> Compiled:
    """A template that does no more than it may. Raises: ValueError, with a sentence for the user."""
    if len(source) > LONGEST:
        raise ValueError(f"it has {len(source)} characters, and {LONGEST} are the most")
    environment = _Sandbox()
    try:
        tree = environment.parse(source)
        _check(tree)
        fields = _fields_of(tree)
        code = environment.compile(_Counting().visit(tree))
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}"[:200]) from error
    except (RecursionError, MemoryError, SyntaxError) as error:
        raise ValueError("it is nested too deeply") from error
    return Compiled(environment, environment.template_class.from_code(environment, code, environment.globals), fields)


def _check(tree: nodes.Template) -> None:
    """Raises: ValueError, for the first node that a template may not have."""
    level: list[nodes.Node] = [tree]
    for _ in range(DEEPEST):
        for node in level:
            _check_node(node)
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _check_node(node: nodes.Node) -> None:
    where = f"line {node.lineno}: "
    if not isinstance(node, NODES) or (isinstance(node, nodes.For) and node.recursive):
        raise ValueError(f"{where}{type(node).__name__.lower()} may not be used")
    if isinstance(node, nodes.Tuple) and node.ctx == "load":
        # one of tuples of itself, forty times over, takes for ever to hash
        raise ValueError(f"{where}a tuple may not be used; a list may")
    if isinstance(node, nodes.Filter) and (node.name not in FILTERS or node.node is None):
        raise ValueError(f"{where}there is no filter {node.name!r:.40}")
    if isinstance(node, nodes.Test) and node.name not in TESTS:
        raise ValueError(f"{where}there is no test {node.name!r:.40}")
    if isinstance(node, nodes.Filter | nodes.Test | nodes.Call) and (node.dyn_args or node.dyn_kwargs):
        raise ValueError(f"{where}* and ** may not be used in a call")
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        raise ValueError(f"{where}{node.attr!r:.40} may not be used")


def _fields_of(tree: nodes.Template) -> frozenset[str]:
    """The fields of a row that a template reads, by their names or as ``row["name"]``."""
    named = meta.find_undeclared_variables(tree)
    items = {
        node.arg.value for node in tree.find_all(nodes.Getitem) if _is_row(node) and isinstance(node.arg, nodes.Const)
    }
    return frozenset(named | items | {node.attr for node in tree.find_all(nodes.Getattr) if _is_row(node)})


def _is_row(node: nodes.Getitem | nodes.Getattr) -> bool:
    return isinstance(node.node, nodes.Name) and node.node.name == "row"


class _Counting(NodeTransformer):
    """Puts a filter that counts wherever Jinja would loop, join, cut or compare by Python's own means."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's naming
        self.generic_visit(node)
        node.iter = _counted(node.iter, "_each")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _counted(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _counted(node.expr, "_weighed")
        for operand in node.ops:
            operand.expr = _counted(operand.expr, "_weighed")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = [end or nodes.Const(None) for end in (node.arg.start, node.arg.stop, node.arg.step)]
        return _counted(node.node, "_slice", ends)


def _counted(node: Any, name: str, arguments: list[Any] | None = None) -> nodes.Filter:
    return nodes.Filter(node, name, arguments or [], [], None, None, lineno=node.lineno)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja with the names, filters, tests and attributes that are listed, and a budget for one row at a time."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            finalize=jinja2.pass_context(lambda _, value: _printed(value)),
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
        )
        self.budget = Budget.for_input({})
        self.globals = {"range": _range}
        self.filters = {name: as_filter(function) for name, function in FILTERS.items()}
        self.filters |= {
            "_each": _each,
            "_concat": as_filter(_concat),
            "_weighed": _weighed,
            "_slice": as_filter(_slice),
        }
        self.tests = {name: self.tests[name] for name in TESTS}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An attribute that `METHODS` lists, or an object's field."""
        if isinstance(obj, Undefined):
            return getattr(obj, attribute)  # which raises, and says what is undefined
        if any(isinstance(obj, kind) and attribute in names for kind, names in METHODS.items()):
            return getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """A field of an object, or an item of a list or text."""
        if isinstance(obj, Undefined):
            return obj[argument]
        if isinstance(argument, Undefined):
            str(argument)  # raises, and says what is undefined
        item: Any = argument
        try:
            if isinstance(obj, dict | list | tuple | str):
                return obj[item]
        except (LookupError, TypeError):
            pass
        return self.undefined(obj=obj, name=item)

    def is_safe_callable(self, obj: Any) -> bool:
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        return obj is _range or any(isinstance(owner, kind) and name in METHODS[kind] for kind in (str, dict))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A listed method, counted by what goes in and what comes out."""
        if isinstance(obj, Undefined):
            return obj()
        # what Jinja passes along where a call stands in a loop or block
        kwargs = {name: value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")}
        if not self.is_safe_callable(obj):
            raise RefusedError("it calls what is no method of texts or objects")
        if obj is _range:
            return _range(context, *args, **kwargs)
        owner = obj.__self__
        self.budget.spend(size_of([owner, *args], self.budget.left))
        if isinstance(owner, str) and obj.__name__ == "replace":
            self.budget.spend(largest_of_replace(owner, *args[:2]))
        result = obj(*args, **kwargs)
        result = result if isinstance(result, str | int | float | None) else _plain(result)
        self.budget.spend(size_of(result, self.budget.left))
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic on numbers; of texts and lists, sums and multiples, counted before they are made."""
        are_numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not are_numbers and not isinstance(left, Undefined) and not isinstance(right, Undefined):
            if operator == "+" and isinstance(left, str | list) and isinstance(right, type(left)):
                self.budget.spend(len(left) + len(right))
            elif operator == "*" and isinstance(left, str | list) and isinstance(right, int):
                self.budget.spend(len(left) * max(right, 0))
            else:
                names = f"{type(left).__name__} and {type(right).__name__}"
                raise RefusedError(f"the operator {operator} does not go with {names}")
        result = super().call_binop(context, operator, left, right)
        self.budget.spend(size_of(result, self.budget.left))
        return result


def _printed(value: Any) -> Any:
    """What is written of a value: texts and numbers as they are."""
    if isinstance(value, Undefined):
        return str(value)  # which raises, and says what is undefined
    if value is None:
        raise RefusedError("it prints a null; say what stands for it with default(..., true), or if")
    if not isinstance(value, str | int | float):
        raise RefusedError("it prints a list or an object as it is; use join, tojson or for")
    return value


@jinja2.pass_context
def _each(context: Any, value: Any) -> Iterator[Any]:
    budget = context.environment.budget
    for item in value:
        budget.spend(1)
        yield item


@jinja2.pass_context
def _weighed(context: Any, value: Any) -> Any:
    budget = context.environment.budget
    budget.spend(size_of(value, budget.left))
    return value


@jinja2.pass_context
def _range(context: Any, *ends: int) -> list[int]:
    numbers = range(*ends)
    context.environment.budget.spend(len(numbers))
    return list(numbers)


def _concat(values: list[Any]) -> str:
    return "".join(str(_printed(value)) for value in values)


def _slice(value: Any, start: int | None, stop: int | None, step: int | None) -> Any:
    if not isinstance(value, str | list):
        raise RefusedError("it cuts what is no text and no list")
    return value[start:stop:step]


def _plain(result: Any) -> Any:
    """What a method gives, as a list where it is a view of an object."""
    return result if isinstance(result, dict | list) else list(result)
