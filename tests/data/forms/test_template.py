"""Templates make text of a row's fields, and nothing else: each way out of the sandbox ends in a sentence."""

from pathlib import Path

import pytest

from mlxtune.data.faults import Fault
from mlxtune.data.forms.template import hash_of_files, templates_of
from mlxtune.data.normalize import Shape, normalize_stream
from mlxtune.data.read import Record
from mlxtune.errors import DataError, RecipeError
from mlxtune.iteration.opening import shape_of
from mlxtune.models.sandbox_budget import Budget, TooMuchError
from mlxtune.recipe.load import load_recipe

ROW = {"text": " Hi ", "items": ["a", "b"], "of": {"x": 1, "y": None}, "a name": "é"}
TWICE = "{% set x = ['aaaaaaaaaa'] %}{% set y = ['aaaaaaaaaa'] %}" + "{% set x = [x, x] %}{% set y = [y, y] %}" * 50
DOUBLED = "{% set x = 'aaaaaaaaaa' %}"


def make(template, row=ROW):
    """The text that ``template`` makes of ``row``, or the message of its fault."""
    made, faults = templates_of(template).make(row, "rows.jsonl:1")
    if not faults:
        return made["text"]
    assert all(fault.kind.startswith("template") and fault.remedy for fault in faults)
    return faults[0].message


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Q: {{ text | trim }}\nA: {{ of.x }}", "Q: Hi\nA: 1"),
        ("{% for item in items %}{{ loop.index }}{{ item }}{% if not loop.last %}, {% endif %}{% endfor %}", "1a, 2b"),
        ("{{ row['a name'] }}{{ row.text }}", "é Hi "),
        ("{{ items | join('-') }} {{ items | length + 1 }} {{ items[0:1] | tojson }}", 'a-b 3 ["a"]'),
        ("{{ text.strip().replace('H', 'h') ~ 1 }}", "hi1"),
        ("{{ missing | default('no') }} {{ of.y | default('no', true) }}", "no no"),
        ("{% for key, value in of.items() if value %}{{ key }}{% endfor %}", "x"),
        ("{% set n = 2 %}{{ n * 3 }}{{ 'ab' * n }}{{ 7 // 2 }}{{ -n }}", "6abab3-2"),
        ("{{ 'a' in items }} {{ text is string }}", "True True"),
        ("{% if text %}\n  yes\n{% endif %}", "  yes\n"),
        ("{% for a in range(2) %}{{ a }}{% endfor %}", "01"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
    ],
)
def test_a_template_makes_text_of_a_rows_fields(template, text):
    assert make(template) == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ nope }}", "'nope' is undefined"),
        ("{{ of.nope.x }}", "has no attribute 'nope'"),
        ("{{ of.y }}", "it prints a null"),
        ("{{ items }}", "it prints a list or an object as it is"),
        ("{{ 1 / 0 }}", "it fails with a ZeroDivisionError"),
        ("{{ items | trim }}", "a filter or method for text got something else"),
        ("{{ text + 1 }}", "the operator + does not go with str and int"),
        ("{{ text | int }}", "it fails with a ValueError"),
    ],
)
def test_a_row_that_does_not_fit_its_template_is_a_fault(template, said):
    message = make(template)
    assert message.startswith("the template for text: ")
    assert said in message


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ of.pop('x') }}",
        "{{ items.append(1) }}",
        "{{ self._TemplateReference__context }}",
        "{{ self }}",
        "{{ range }}",
        "{{ text.format }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{% for a in items %}{{ loop.__init__ }}{{ loop._iterator }}{% endfor %}",
        "{{ items.__len__() }}",
        "{{ (text.strip)() if false else text.encode() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ lipsum(1000000) }}",
        "{{ items[0].join(items) }}",
    ],
)
def test_a_template_reaches_nothing_but_texts_numbers_lists_and_objects(template):
    try:
        said = make(template)
    except RecipeError as error:
        said = error.message
    assert said.startswith(("the template for text: ", "data.template.text: "))


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 1000000000 }}",
        "{{ [0] * 1000000000 }}",
        "{% for a in range(100000000000) %}{% endfor %}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(1000) %}{% for b in range(1000) %}aaaaaaaaaaaaaaaa{% endfor %}{% endfor %}",
        DOUBLED + "{% set x = x ~ x %}" * 60 + "{{ x }}",
        DOUBLED + "{% set x = x + x %}" * 60 + "{{ x }}",
        DOUBLED + "{% set x = [x, x] | join %}" * 60 + "{{ x }}",
        DOUBLED + "{% set x = x.replace('a', x) %}" * 60 + "{{ x }}",
        DOUBLED + "{% set x = x | replace('', x) %}" * 60 + "{{ x }}",
        "{% set x = 7 %}" + "{% set x = x * x %}" * 60 + "{{ x }}",
        TWICE + "{{ x == y }}",
        TWICE + "{{ x in [y] }}",
        TWICE + "{{ x | tojson }}",
        TWICE + "{{ x | sort }}",
        TWICE + "{{ [x, y] | max }}",
        "{{ text.split('') }}" + "{% for a in range(99999) %}{{ 'aaaaaaaaaa' * 100 }}{% endfor %}",
    ],
)
def test_a_template_that_would_go_on_for_ever_or_fill_the_memory_is_stopped(template):
    assert make(template).startswith("the template for text: it ")


def test_a_template_that_was_stopped_in_three_rows_is_not_tried_on_more():
    rows = [Record({}, Path("rows.jsonl"), line) for line in range(1, 1000)]
    stream = iter(normalize_stream(rows, Shape(template="{{ 'a' * 1000000000 }}")))
    assert [next(stream).kind for _ in range(3)] == 3 * ["template costs"]
    with pytest.raises(DataError, match="so in 3 rows"):
        next(stream)


def test_a_template_is_stopped_when_its_time_is_over():
    budget = Budget(10**9, seconds=0)
    with pytest.raises(TooMuchError, match="more than 0 seconds"):
        budget.spend(1)


def test_a_long_row_may_be_gone_over_several_times():
    long = "ab " * 3_000_000
    assert make("{{ text | trim | upper }}{{ text }}", {"text": long}) == long.strip().upper() + long


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% if %}", "line 1: "),
        ("a\n{{ x", "line 2: "),
        ("{% include '/etc/passwd' %}", "include may not be used"),
        ("{% import 'a' as b %}", "import may not be used"),
        ("{% extends 'a' %}", "extends may not be used"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "macro may not be used"),
        ("{% block a %}{% endblock %}", "block may not be used"),
        ("{% for a in items recursive %}{{ loop(items) }}{% endfor %}", "for may not be used"),
        ("{% set x %}a{% endset %}", "assignblock may not be used"),
        ("{% set ns.a = 1 %}", "nsref may not be used"),
        ("{{ 9 ** 9 ** 9 ** 9 }}", "pow may not be used"),
        ("{{ (1, 2) }}", "a tuple may not be used"),
        ("{{ text | attr('x') }}", "there is no filter 'attr'"),
        ("{{ text is callable }}", "there is no test 'callable'"),
        ("{{ text.replace(*items) }}", "* and ** may not be used"),
        ("{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}", "nested too deeply"),
        ("{{ " + "+".join(["1"] * 500) + " }}", "nested too deeply"),
        ("a" * 100_001, "100000 are the most"),
        ("no/such/file.jinja", "cannot be read: No such file or directory"),
    ],
)
def test_a_template_that_asks_for_more_than_it_may_have_is_refused_at_once(template, said):
    with pytest.raises(RecipeError) as caught:
        templates_of(template)
    assert said in caught.value.message
    assert caught.value.message.startswith("data.template.text: ")
    assert caught.value.remedy


def test_a_template_makes_one_of_the_columns_of_text():
    with pytest.raises(RecipeError, match="cannot make the column 'messages'"):
        templates_of({"messages": "a"})


def test_a_template_may_stand_in_a_file(tmp_path):
    (tmp_path / "prompt.jinja").write_text("Q: {{ text | trim }}é\n", encoding="utf-8")
    assert make(str(tmp_path / "prompt.jinja")) == "Q: Hié"


def test_a_recipe_names_a_templates_file_from_its_own_folder_and_its_content_counts(tmp_path):
    (tmp_path / "own.jinja").write_text("{{ text }}")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: a\nmodel: {source: smollm2-135m-instruct}\n"
        "data: {train: a.jsonl, template: {prompt: own.jinja, completion: 'in x.jinja: {{ text }}'}}\n"
    )
    shape = shape_of(load_recipe(recipe).recipe.data)
    assert shape.template == {"prompt": str(tmp_path / "own.jinja"), "completion": "in x.jinja: {{ text }}"}
    before = hash_of_files(shape.template)
    (tmp_path / "own.jinja").write_text("{{ text }}!")
    assert set(before) == {"prompt"}
    assert hash_of_files(shape.template) != before
    one = load_recipe(recipe, [f"data.template={tmp_path}/own.jinja"]).recipe.data
    assert one.template == str(tmp_path / "own.jinja")


def test_what_templates_make_decides_the_form_and_is_read_as_if_it_stood_in_the_row():
    rows = [Record({"text": "Hi", "label": 1}, Path("rows.jsonl"), 1), Record({"text": "Hi"}, Path("rows.jsonl"), 2)]
    template = {"prompt": "{{ text }}?", "completion": "{{ ['no', 'yes'][label] }}"}
    stream = normalize_stream(rows, Shape(template=template))
    example, fault = stream
    assert stream.why == "prompt_completion: the recipe names 'prompt' (data.template) and 'completion' (data.template)"
    assert [message.content for message in example.messages] == ["Hi?", "yes"]
    assert fault == Fault("rows.jsonl:2", "the template for completion: 'label' is undefined", "template", fault.remedy)
    only_text = normalize_stream(rows[:1], Shape(template="{{ text }} {{ label }}"))
    assert [row.text for row in only_text] == ["Hi 1"]


def test_an_empty_text_of_a_template_is_an_empty_text():
    stream = normalize_stream([Record({"a": ""}, Path("rows.jsonl"), 1)], Shape(template="{{ a }} "))
    assert [row.kind for row in stream] == ["empty"]
