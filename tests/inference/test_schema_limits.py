"""A schema costs no more than what is stated, fetches nothing, and is refused by the part that is at fault."""

import pytest

from mlxtune.errors import UsageError
from mlxtune.inference.constrain import Grammars
from mlxtune.inference.schema_limits import check_schema, check_schemas, places_of


def refusal(schema):
    with pytest.raises(UsageError) as caught:
        check_schema(schema)
    return caught.value.message


def nested(levels):
    schema = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


def chain(length):
    definitions = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(length)}
    return {"$defs": {**definitions, f"d{length}": {}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    "reference",
    [
        "https://example.com/x.json",
        "file:///etc/passwd",
        "other.json",
        "#anchor",
        "#/$defs/none",
        "#/anyOf/1",
        "#/anyOf/00",
    ],
)
def test_a_reference_out_of_the_schema_is_refused_by_its_place(reference):
    message = refusal({"properties": {"a": {"$ref": reference}}, "anyOf": [{}]})
    assert message == f"$ref at #/properties/a is {reference!r}, which is not in the schema; nothing is fetched"


def test_references_into_the_schema_are_followed_however_they_are_spelled():
    for reference in ("#", "#/$defs/a~1b", "#/%24defs/a%7E1b", "#/anyOf/0", "#/properties/$ref"):
        check_schema(
            {"$defs": {"a/b": {}}, "anyOf": [{}], "properties": {"$ref": {"type": "string"}, "x": {"$ref": reference}}}
        )


@pytest.mark.parametrize("key", ["$id", "$schema", "$dynamicRef", "$recursiveRef"])
def test_what_changes_the_meaning_of_references_is_refused(key):
    assert refusal({"items": {key: "#x"}}) == f"{key} at #/items is not followed"


def test_a_schema_may_say_which_it_is():
    check_schema({"$id": "https://example.com/mine", "$schema": "https://json-schema.org/draft/2020-12/schema"})


MANY = {f"k{i}": {} for i in range(401)}
TOO_MUCH = {
    "characters": ({"description": "x" * 70_000}, "the schema has too many characters to follow: 70,019 of 65,536"),
    "nesting": (nested(101), "the schema is nested deeper than 100 levels"),
    "properties": (
        {"items": {"properties": MANY}},
        "the object at #/items has 401 properties; at most 400 are followed",
    ),
    "references": (
        chain(1000),
        "the schema's parts refer to each other through 4,007 levels; at most 1,000 are followed",
    ),
    "units": ({"multipleOf": 10_001}, "units in multipleOf, such as 25 in 0.25, to follow: 10,001 of 10,000"),
    "units with zeros": ({"multipleOf": 99990000}, "to follow: 99,990,000 of 10,000"),
    "units of a fraction": ({"multipleOf": 0.10001}, "to follow: 10,001 of 10,000"),
    "units together": ({"anyOf": [{"multipleOf": 6000}, {"multipleOf": 6001}]}, "to follow: 12,001 of 10,000"),
    "patterns": ({"prefixItems": [{"pattern": "a"}] * 51}, "the schema has too many patterns to follow: 51 of 50"),
    "keyed patterns": ({"patternProperties": {f"^{i}": {} for i in range(51)}}, "to follow: 51 of 50"),
    "no JSON": ({"const": {1, 2}}, "the schema is not JSON: Object of type set is not JSON serializable"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_costs_too_much_is_refused(name):
    schema, expected = TOO_MUCH[name]
    assert expected in refusal(schema)


def test_what_is_just_within_the_bounds_is_followed(constrained):
    del MANY["k400"]
    for schema in (
        nested(100),
        {"properties": MANY},
        chain(240),
        {"multipleOf": 10_000},
        {"multipleOf": True},
        {"prefixItems": [{"pattern": "a"}] * 50},
    ):
        check_schema(schema)
    for schema in (nested(60), {"type": "object", "properties": MANY}, chain(240), {"multipleOf": 10_000}):
        assert constrained.json_schema(schema).allowed().any()


def test_schemas_that_are_followed_at_once_have_the_bounds_together():
    check_schemas([{"multipleOf": 5000}] * 2)
    with pytest.raises(UsageError, match=r"the schemas have too many units .*: 15,000 of 10,000"):
        check_schemas([{"multipleOf": 5000}] * 3)
    with pytest.raises(UsageError, match=r"\$ref at # is '#x'"):
        check_schemas([{}, {"$ref": "#x"}])


def test_data_that_looks_like_a_schema_is_no_fault():
    check_schema({"properties": {"multipleOf": {}, "$ref": {}, "pattern": {}, "$id": {}, "properties": {}}})


def test_places_are_json_pointers():
    assert places_of({"a/b": [{"x~y": {"not": {}}}], "not": 1}, "not") == ["#", "#/a~1b/0/x~0y"]


@pytest.fixture(scope="module")
def constrained(tmp_path_factory):
    from tiny import VOCABULARY_SIZE, tiny_tokenizer

    return Grammars(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")), VOCABULARY_SIZE)
