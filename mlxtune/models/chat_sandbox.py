"""A chat template's Jinja, as transformers sets it up, with a limit to what it may cost.

A chat template comes with a model: it is a stranger's program. transformers' sandbox keeps it from Python's inside, not
from running for ever or filling the memory (a loop in a loop in a loop, a list of itself twice, forty times over). So
here all that grows is counted against a `Budget`: loops by step and by the text in them, calls, what filters and
methods take and give, what is kept in a variable, what is written. What would make much of little in one step, without
a count (powers, padding to a width, formats with one), is refused. Otherwise a template does here what it does there.

The price is a few small calls a turn, about a tenth of the time that transformers takes to prepare a chat for its own.
Source: transformers/utils/chat_template_utils.py, https://jinja.palletsprojects.com/en/stable/sandbox/
"""

import re
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, _PassArg
from jinja2.visitor import NodeTransformer

from mlxtune.models.chat_globals import PlainDict, PublicNamespace, raise_exception, strftime, to_json
from mlxtune.models.sandbox_budget import Budget, size_of

LEAST = 4_000_000
"""Characters and items that any chat has."""

PER_CHARACTER = 64
"""And so many more for each character of the chat."""

AT_ONCE = 1000
"""Steps of a loop between two looks at the clock."""

WIDEST = 40
"""Spaces to indent by."""

LARGEST_BASE, LARGEST_EXPONENT = 1e6, 64
"""Of a power."""

KNOWN_FILTERS = (
    *("abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby"),
    *("indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr"),
    *("replace", "reverse", "round", "safe", "select", "selectattr", "sort", "string", "title", "trim", "unique"),
    *("upper", "wordcount"),
)

COMPARING = ("eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<=", "gt", ">", "greaterthan", "ge")
COMPARING += (">=", "in", "sameas")

METHODS: dict[type, tuple[str, ...]] = {
    str: (
        *("strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "casefold", "swapcase", "split"),
        *("rsplit", "splitlines", "partition", "rpartition", "startswith", "endswith", "replace", "join", "format"),
        *("find", "rfind", "index", "rindex", "count", "removeprefix", "removesuffix", "isalnum", "isalpha", "isdigit"),
        *("isdecimal", "isnumeric", "isspace", "isupper", "islower", "istitle"),
    ),
    dict: ("items", "keys", "values", "get", "copy"),
    list: ("index", "count", "copy"),
    tuple: ("index", "count"),
    bytes: (),
    int: (),
    float: (),
}
"""What may be called, by the type that has it; of other types, what Jinja's sandbox lets."""

OF_DICTS = frozenset(dir(dict))
OF_LOOPS = frozenset(["index", "index0", "first", "last", "length", "previtem", "nextitem", "revindex", "revindex0"])


class CompiledChat:
    """A chat template that may be rendered; not by two threads at once."""

    def __init__(self, environment: "_Environment", template: jinja2.Template) -> None:
        self._environment, self._template = environment, template

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text of a chat.

        Args:
            variables: plain JSON values, as transformers gives them: messages, tools, add_generation_prompt ...
                Each message has a text as ``content``.

        Raises: anything that a template's code can; TooMuchError.
        """
        count = LEAST + PER_CHARACTER * sum(len(message["content"]) for message in variables["messages"])
        self._environment.budget = budget = Budget(count)
        pieces: list[str] = []
        try:
            for piece in self._template.root_render_func(self._template.new_context(dict(variables))):
                budget.left -= len(piece)
                pieces.append(piece)
            budget.spend(0)
        except Exception:  # noqa: BLE001 - raised again, with the template's own lines in its traceback
            self._environment.handle_exception()
        return "".join(pieces)


def compile_chat(source: str, clock: Callable[[], datetime] = datetime.now) -> CompiledChat:
    """A chat template, ready to be rendered.

    Args:
        clock: what time it is, for templates that write the day.

    Raises: jinja2.TemplateSyntaxError; RecursionError, and what else Python says of code that is nested too deeply.
    """
    environment = _Environment(clock)
    tree = environment.parse(source)
    environment.literals = sum(len(node.data) for node in tree.find_all(nodes.TemplateData))
    code = environment.compile(_Counting().visit(tree))
    return CompiledChat(environment, environment.template_class.from_code(environment, code, environment.globals))


class _Generation(jinja2.ext.Extension):
    """``{% generation %}``, by which some templates mark what a model writes; here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Counting(NodeTransformer):
    """Puts a filter that counts wherever Jinja would loop, keep or compare by Python's own means."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's naming
        literals = sum(len(data.data) for part in node.body for data in _with_itself(part, nodes.TemplateData))
        self.generic_visit(node)
        node.iter = _filter(node.iter, "_each", nodes.Const(literals))
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.node = _weighed(node.node)
        return node

    def visit_With(self, node: nodes.With) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.values = [_weighed(value) for value in node.values]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not any(isinstance(part, nodes.Const) for part in [node.expr, *(operand.expr for operand in node.ops)]):
            node.expr = _weighed(node.expr)
            for operand in node.ops:
                operand.expr = _weighed(operand.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = _weighed(node.key)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            node.arg = _weighed(node.arg)
        return node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        # one of tuples of itself, forty times over, takes for ever to hash
        return node if node.ctx != "load" else nodes.List(node.items, lineno=node.lineno)


def _with_itself(node: nodes.Node, kind: type[nodes.TemplateData]) -> Iterable[nodes.TemplateData]:
    return [node] if isinstance(node, kind) else node.find_all(kind)


def _weighed(node: Any) -> Any:
    return node if isinstance(node, nodes.Const) else _filter(node, "_weighed")


def _filter(node: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja as transformers has it, and the budget of one rendering at a time."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, jinja2.ext.loopcontrols],
            finalize=jinja2.pass_context(lambda context, value: _spend_on(context.environment.budget, value)),
            optimized=False,  # or what is constant would be worked out without a count
        )
        self.budget = Budget(0)
        self.literals = 0
        """Characters of text in the template: at most so many are written by one call."""
        self.filters = {name: _counted(name, FILTERS[name]) for name in KNOWN_FILTERS}
        self.filters |= {"tojson": _counted("tojson", to_json), "_each": _each, "_weighed": _weigh}
        self.tests |= {name: self._counted_test(self.tests[name]) for name in COMPARING}
        self.globals = {
            "range": self.globals["range"],
            "cycler": Cycler,
            "joiner": Joiner,
            "namespace": PublicNamespace,
            "dict": PlainDict(),
            "raise_exception": raise_exception,
            "strftime_now": lambda form: strftime(clock(), form),
        }

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An attribute or item, as Jinja's sandbox gives it, which takes its time over each."""
        if type(obj) is dict and attribute not in OF_DICTS:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if type(obj) is LoopContext and attribute in OF_LOOPS:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def _counted_test(self, test: Callable[..., bool]) -> Callable[..., bool]:
        def counted(*values: Any) -> bool:
            self.budget.spend(size_of(values, self.budget.left))
            return test(*values)

        return counted

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call, counted by what goes in and what comes out."""
        budget = self.budget
        budget.spend(1 + (self.literals if isinstance(obj, Macro) else 0))
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        names = METHODS.get(type(owner)) or next((n for kind, n in METHODS.items() if isinstance(owner, kind)), None)
        if names is not None:
            if name not in names:
                raise SecurityError(f"a chat template may not call {name!r:.40}")
            budget.spend(size_of(owner, budget.left))
        if isinstance(owner, str):
            args = _checked(owner, name, args, budget)
        named = [value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")]  # Jinja's own
        budget.spend(size_of([args, named], budget.left))
        result = super().call(context, obj, *args, **kwargs)
        if isinstance(result, KeysView | ValuesView | ItemsView):
            result = list(result)  # which shows what is in it, and is counted
        budget.spend(size_of(result, budget.left))
        return result

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """A text's method that formats; None for any other."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        if re.search(r"\{[^{}]*:", value.__self__):
            raise SecurityError("a chat template may not format with a width")

        def counted(*args: Any, **kwargs: Any) -> str:
            self.budget.spend(value.__self__.count("{") * size_of([args, kwargs], self.budget.left))
            return wrapped(*args, **kwargs)

        return counted

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """A product, counted before it is made, or a remainder."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "*" and not numbers:
            (thing, count) = (left, right) if isinstance(right, int) else (right, left)
            if not isinstance(thing, str | list) or not isinstance(count, int):
                raise SecurityError("a chat template may not multiply that")
            self.budget.spend(len(thing) * max(count, 0))
        elif operator == "**" and not (numbers and abs(left) <= LARGEST_BASE and abs(right) <= LARGEST_EXPONENT):
            raise SecurityError("a chat template may not make so large a power")
        elif operator == "%" and isinstance(left, str) and re.search(r"[\d*]", left):
            raise SecurityError("a chat template may not format with a width")
        places = left.count("%") if isinstance(left, str) else 1
        self.budget.spend(places * size_of([left, right], self.budget.left))
        return super().call_binop(context, operator, left, right)


def _checked(owner: str, name: str, args: tuple[Any, ...], budget: Budget) -> tuple[Any, ...]:
    """The arguments of a text's method, where it makes more than it is given."""
    if name == "replace":
        _spend_on_replace(owner, args, budget)
    if name == "join" and args:
        items = list(args[0])
        budget.spend(len(items) * len(owner))
        return (items,)
    return args


def _spend_on_replace(text: str, args: tuple[Any, ...], budget: Budget) -> None:
    old, new = (*args, "", "")[:2]
    if isinstance(old, str) and isinstance(new, str):  # else it fails by itself
        budget.spend(text.count(old) * len(new))


def _spend_on(budget: Budget, value: Any) -> Any:
    if not isinstance(value, str):
        budget.spend(size_of(value, budget.left))
        return value
    budget.left -= len(value)
    if budget.left < 0:  # else the clock is left to loops and calls
        budget.spend(0)
    return value


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Jinja's filter, counted by what goes in and what comes out.

    It takes the context, which also keeps Jinja from working it out when a template is compiled.
    """
    wanted = _PassArg.from_obj(function)

    @jinja2.pass_context
    def counted(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.environment.budget
        if name == "join" and not isinstance(value, str | Undefined):
            value = list(value)
        budget.spend(size_of([value, *args, *kwargs.values()], budget.left))
        _spend_on_filter(name, value, args, kwargs, budget)
        if wanted is _PassArg.context:
            result = function(context, value, *args, **kwargs)
        elif wanted is _PassArg.eval_context:
            result = function(context.eval_ctx, value, *args, **kwargs)
        elif wanted is _PassArg.environment:
            result = function(context.environment, value, *args, **kwargs)
        else:
            result = function(value, *args, **kwargs)
        budget.spend(size_of(result, budget.left))
        return result

    return counted


def _spend_on_filter(name: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any], budget: Budget) -> None:
    """What a filter may make besides what it is given. Raises: SecurityError, where that is beyond all use."""
    if name == "join" and isinstance(value, str | list):
        by = str((*args, kwargs.get("d", ""))[0])
        budget.spend(len(value) * len(by))
    elif name == "replace" and isinstance(value, str):
        _spend_on_replace(value, (*args, kwargs.get("old", ""), kwargs.get("new", "")), budget)
    elif name in ("indent", "tojson", "round"):
        widths = [*args, *kwargs.values()]
        if any((len(width) if isinstance(width, str) else width) > WIDEST for width in widths if _is_width(width)):
            raise SecurityError(f"a chat template may not use {name} with more than {WIDEST}")
        budget.spend(WIDEST * size_of(value, budget.left) if widths else 0)


def _is_width(value: Any) -> bool:
    return isinstance(value, str | int | float)


@jinja2.pass_context
def _each(context: Any, value: Any, literals: int) -> Iterable[Any]:
    """What a loop goes over; each step counts as one, and as the text in it."""
    budget = context.environment.budget
    if isinstance(value, list | dict | str) and len(value) <= AT_ONCE:
        budget.spend(len(value) * (literals + 1))
        return value
    return _each_one(budget, value, literals)


def _each_one(budget: Budget, value: Iterable[Any], literals: int) -> Iterable[Any]:
    for item in value:
        budget.spend(literals + 1)
        yield item


@jinja2.pass_context
def _weigh(context: Any, value: Any) -> Any:
    return _spend_on(context.environment.budget, value)
