"""JSON Schema 2020-12, as much of it as the API's own schemas use; a word that is not here fails the test that meets it."""

import re
from typing import Any

_TYPES = {
    "string": str,
    "object": dict,
    "array": list,
    "boolean": bool,
    "null": type(None),
}
_KNOWN = {
    "$ref",
    "type",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "maxItems",
    "anyOf",
    "description",
    "contentMediaType",
    "default",
    "examples",
}


def faults(value: Any, schema: dict[str, Any], schemas: dict[str, Any], at: str = "$") -> list[str]:
    """What of `value` is not as `schema` says; [] if all of it is."""
    unknown = schema.keys() - _KNOWN
    assert not unknown, f"{at}: this checker does not know {unknown}"
    if "$ref" in schema:
        return faults(value, schemas[schema["$ref"].rsplit("/", 1)[1]], schemas, at)
    if "anyOf" in schema:
        tried = [faults(value, one, schemas, at) for one in schema["anyOf"]]
        return [] if any(not t for t in tried) else min(tried, key=len)
    names = schema.get("type", [])
    names = names if isinstance(names, list) else [names]
    if names and not any(_is(value, name) for name in names):
        return [f"{at}: expected {names}, got {value!r:.80}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: expected one of {schema['enum']}, got {value!r:.80}")
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            found.append(f"{at}: expected {schema['pattern']}, got {value!r:.80}")
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            found.append(f"{at}: a text of {len(value)} characters")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{at}: {value} is out of range")
    if isinstance(value, dict):
        found += _object(value, schema, schemas, at)
    if isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            found.append(f"{at}: {len(value)} items")
        for i, item in enumerate(value):
            found += faults(item, schema.get("items", {}), schemas, f"{at}[{i}]")
    return found


def _object(value: dict[str, Any], schema: dict[str, Any], schemas: dict[str, Any], at: str) -> list[str]:
    properties = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    found = [f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value]
    for name, inner in value.items():
        if name in properties:
            found += faults(inner, properties[name], schemas, f"{at}.{name}")
        elif more is False:
            found.append(f"{at}: {name} is not in the schema")
        elif isinstance(more, dict):
            found += faults(inner, more, schemas, f"{at}.{name}")
    return found


def _is(value: Any, name: str) -> bool:
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _TYPES[name])
