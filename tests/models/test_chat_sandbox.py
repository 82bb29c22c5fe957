"""A chat template is a stranger's program: it renders as transformers would render it, and cannot run away."""

import time
from datetime import datetime

import jinja2
import pytest
from jinja2.exceptions import SecurityError
from transformers.utils.chat_template_utils import render_jinja_template

from mlxtune.models.chat_sandbox import compile_chat
from mlxtune.models.sandbox_budget import TooMuchError

MESSAGES = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "Hi <b>"},
    {
        "role": "assistant",
        "content": "Hello é",
        "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, None]}}}],
    },
]
GIVEN = {"messages": MESSAGES, "tools": None, "documents": None, "add_generation_prompt": True, "bos_token": "<s>"}


def render(source, **more):
    return compile_chat(source).render({**GIVEN, **more})


@pytest.mark.parametrize(
    "source",
    [
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}|{{ m.content | trim }}]{% endfor %}",
        "{% for m in messages[::-1] %}{{ loop.index0 }}{{ loop.last }}{{ loop.revindex }}{% endfor %}",
        "{% for m in messages if m.role != 'system' %}{{ loop.length }}{{ loop.previtem is defined }}{% endfor %}",
        "{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ m.content | e }}{% endfor %}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "{{ messages[2].tool_calls | tojson }}{{ messages[2] | tojson(indent=2) }}{{ messages[2].tool_calls }}",
        "{{ messages | map(attribute='role') | join(', ') }}{{ ', '.join(messages | map(attribute='role')) }}",
        "{% macro m(x, y='-') %}<{{ x }}{{ y }}>{% endmacro %}{{ m('a') }}{{ m('b', y=m('c')) }}",
        "{% set x %}a{{ bos_token }}{% endset %}{{ x ~ x ~ 1 }}{{ x + 'b' }}{{ 'ab' * 3 }}{{ 7 % 4 }}{{ '%s' % 'a' }}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
        "{% for m in messages %}{% generation %}{{ m.role }}{{ loop.index }}{% endgeneration %}{% endfor %}",
        "{{ missing }}{{ missing is defined }}{{ missing | default('d') }}{{ messages[0].missing }}{{ messages[9] }}",
        "{{ messages[0].content.strip().replace('e', 'ee').split(' ') }}{{ '{}'.format(1) }}{{ 'a' in ('a', 'b') }}",
        "{% for k, v in messages[0].items() %}{{ k }}={{ v }}{% endfor %}{{ messages[0] | items | list | length }}",
        "{% for k, v in messages[0] | dictsort %}{{ k }}{% endfor %}{{ [3, 1] | sort }}{{ range(3) | list }}",
        "{% if messages[0].role == 'system' and add_generation_prompt %}  \n  {%- endif %}\n {{ dict(a=1).a }}",
        "{{ messages == messages[:] }}{{ messages[0].content is string }}{{ messages is iterable }}{{ tools is none }}",
        "{{ cycler('a', 'b').next() }}{% with a = 'x' %}{{ a }}{% endwith %}{{ 'abc'[1:] }}{{ messages[-1]['role'] }}",
        "{% filter upper %}{{ bos_token }}{% endfilter %}{{ 1.5 | round | int }}{{ -3 | abs }}{{ 'a b' | title }}",
    ],
)
def test_a_template_renders_as_transformers_renders_it(source):
    given = {key: value for key, value in GIVEN.items() if key != "messages"}
    (expected,), _ = render_jinja_template([MESSAGES], chat_template=source, **given)
    assert render(source) == expected


def test_a_template_raises_what_it_says():
    with pytest.raises(jinja2.TemplateError, match=r"^no tools here$"):
        render("{{ raise_exception('no tools here') }}")


def test_the_day_is_the_clocks():
    template = compile_chat("{{ strftime_now('%d %b %Y') }}", clock=lambda: datetime(2025, 7, 10))  # noqa: DTZ001
    assert template.render(GIVEN) == "10 Jul 2025"


@pytest.mark.parametrize("source", ["{{ messages.__class__ }}", "{{ ''.__class__.__mro__ }}"])
def test_pythons_inside_is_not_to_be_had(source):
    assert "class" not in _rendered_or_refused(source)


def _rendered_or_refused(source):
    try:
        return render(source)
    except (SecurityError, jinja2.UndefinedError):
        return ""


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
ENDS = "{% endfor %}{% endfor %}{% endfor %}"
DOUBLE = "{% for i in range(60) %}{% set ns.x = "


@pytest.mark.parametrize(
    "source",
    {
        "a loop in a loop in a loop": LOOP + ENDS,
        "much text in a loop": "{% for a in range(99999) %}" + "word " * 5000 + "{% endfor %}",
        "a long product": "{{ 'a' * 10**9 }}",
        "a large product of lists": "{{ ([1] * 99999999999) | length }}",
        "a constant product": "{{ 'a' * 9999999999 }}",
        "a text of itself twice": "{% set ns = namespace(x='ab') %}" + DOUBLE + "ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "a joined text of itself": "{% set ns = namespace(x='ab') %}" + DOUBLE + "ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "a list of itself twice": "{% set ns = namespace(x=[1]) %}" + DOUBLE + "[ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "lists to compare": "{% set ns = namespace(x=[1], y=[1]) %}"
        + DOUBLE
        + "[ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "an object of itself as JSON": "{% set ns = namespace(x={}) %}"
        + DOUBLE
        + "{'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x | tojson }}",
        "a captured text of itself": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
        "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
        "a macro that calls itself": "{% macro m(x) %}{{ m(x) }}{{ m(x) }}{% endmacro %}{{ m(1) }}",
        "a macro that doubles": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% else %}ab{% endif %}"
        "{% endmacro %}{{ m(60) }}",
        "a text replaced by itself": "{% set ns = namespace(x='aa') %}"
        + DOUBLE
        + "ns.x.replace('a', ns.x) %}{% endfor %}",
        "the same by a filter": "{% set ns = namespace(x='aa') %}"
        + DOUBLE
        + "ns.x | replace('a', ns.x) %}{% endfor %}",
        "a text joined with itself": "{% set ns = namespace(x='aa') %}" + DOUBLE + "ns.x.join(ns.x) %}{% endfor %}",
        "the same by a filter, too": "{% set ns = namespace(x='aa') %}" + DOUBLE + "ns.x | join(ns.x) %}{% endfor %}",
        "namespaces in namespaces": "{% set ns = namespace(x=1) %}"
        + DOUBLE
        + "namespace(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x }}{{ 1 / 0 }}",
        "views of objects": "{% set ns = namespace(x={}) %}"
        + DOUBLE
        + "{'a': ns.x, 'b': ns.x}.items() %}{% endfor %}{{ ns.x }}",
        "a wide text": "{{ 'a'.ljust(10**10) }}",
        "a wide format": "{{ '{:9999999999}'.format(1) }}",
        "a wide per cent": "{{ '%9999999999d' % 1 }}",
        "a format with many places": "{% set x = 'ab' * 10**6 %}{{ ('{0}' * 10**6).format(x) }}",
        "a per cent with many places": "{% set x = 'ab' * 10**6 %}{{ ('%(x)s' * 10**5) % {'x': x} }}",
        "a wide date": "{{ strftime_now('%9999999999Y') }}",
        "a power": "{{ 9 ** 99999999 }}",
        "a power of powers": "{{ 9 ** (9 ** 9) }}",
        "a wide indent": "{{ 'a' | indent(10**9) }}",
        "a wide indent as JSON": "{{ [1] | tojson(indent=10**9) }}",
        "digits without end": "{{ 1.5 | round(10**9) }}",
        "bytes of a number": "{{ (1).to_bytes(10**10) }}",
    }.values(),
)
def test_a_template_that_runs_away_is_stopped(source):
    begin = time.monotonic()
    with pytest.raises((TooMuchError, SecurityError, RecursionError, ZeroDivisionError, jinja2.TemplateError)):
        render(source)
    assert time.monotonic() - begin < 8


def test_a_long_chat_is_not_stopped():
    messages = [{"role": "user", "content": "word " * 20_000}, {"role": "assistant", "content": "word"}] * 100
    source = "{% for m in messages %}{% set content = m.content | trim %}<{{ m.role }}>{{ content }}{% endfor %}"
    assert len(render(source, messages=messages)) > 100 * 99_999
