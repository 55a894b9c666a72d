"""What schemas are written with: JSON Schema 2020-12, which OpenAPI 3.1 takes as it is. Pure."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
SECONDS: Schema = {"type": "number", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
#: Of any size: they outgrow a JavaScript number.
DECIMAL: Schema = {"type": "string", "pattern": "^-?[0-9]+$"}
TIME: Schema = {
    "type": "string",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3})?Z$",
}
HEX: Schema = {"type": "string", "pattern": "^[0-9a-f]+$"}
ANY_OBJECT: Schema = {"type": "object"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def array(item: Schema, *, most: int | None = None) -> Schema:
    return {"type": "array", "items": item} | ({} if most is None else {"maxItems": most})


def null(schema: Schema) -> Schema:
    """Or nothing."""
    return {"anyOf": [schema, {"type": "null"}]}


def each(schema: Schema) -> Schema:
    """An object whose keys are names."""
    return {"type": "object", "additionalProperties": schema}


def thing(optional: dict[str, Schema] | None = None, /, **required: Schema) -> Schema:
    """An object with these keys, and no others. A key that is a word of Python's ends with an underscore."""
    needed = {name.rstrip("_"): schema for name, schema in required.items()}
    return {
        "type": "object",
        "properties": needed | (optional or {}),
        "required": list(needed),
        "additionalProperties": False,
    }


def open_thing(**required: Schema) -> Schema:
    """An object with these keys at least: the CLI's page says what else there is."""
    return thing(**required) | {"additionalProperties": True}


def paged(item: Schema, **beside: Schema) -> Schema:
    return thing(as_of=TIME, items=array(item), next_=null(TEXT), total=COUNT, **beside)
