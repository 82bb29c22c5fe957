"""``/docs``: the server's paths and their fields, for people, made of its OpenAPI description.

FastAPI's own page fetches its scripts from the network, which nothing here does.
"""

from collections.abc import Mapping
from typing import Any

from mlxtune.page import Html, document, join, tag

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""For browsers; the page's own names its style by a hash."""
STYLE = """
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 code { font-size: 1.1rem; }
td { vertical-align: top; padding: .2rem 1rem .2rem 0; }
"""


ENDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
"""JSON schema's words for the ends of a range."""


def docs_page(described: Mapping[str, Any]) -> str:
    """The page.

    Args:
        described: the application's OpenAPI document.
    """
    parts = [tag("h1", "mlxtune: what this server answers")]
    said = "The same for programs: "
    parts.append(tag("p", said, tag("a", "openapi.json", href="/openapi.json")))
    schemas = described["components"]["schemas"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(method, path, operation, schemas))
    return document(title="mlxtune: the API", style=STYLE, body=tag("main", join(parts)))


def _operation(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Html:
    said = operation.get("description") or operation.get("summary", "")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    heading = tag("h2", tag("code", f"{method.upper()} {path}"))
    return join([heading, tag("p", said), *([_fields(schemas[_kind(body)])] if body else [])])


def _fields(schema: Mapping[str, Any]) -> Html:
    required = schema.get("required", ())
    rows = [
        tag("tr", tag("td", tag("code", name)), tag("td", _kind(field)), tag("td", "required" * (name in required)))
        for name, field in sorted(schema["properties"].items(), key=lambda item: (item[0] not in required, item[0]))
    ]
    return tag("table", tag("tbody", join(rows)))


def _kind(field: Mapping[str, Any]) -> str:
    """What a field may be, in words."""
    if "anyOf" in field:
        kinds = [_kind(one) for one in field["anyOf"]]
        return " or ".join(kind for i, kind in enumerate(kinds) if kind != "null" and kind not in kinds[:i])
    if "enum" in field:
        return " or ".join(map(str, field["enum"]))
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    ends = [f"{word} {field[key]:g}" for key, word in ENDS.items() if key in field]
    return " ".join([str(field.get("type", field.get("const", "any"))), *ends])
