"""Shapes as JSON Schema 2020-12, and the examples that lie in them.

In: the models that validate requests, the shapes of answers. Out: `components.schemas`, and a
schema for each shape asked for.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

Json = dict[str, Any]

_PLACE = "#/components/schemas/"


class _Bare(GenerateJsonSchema):
    """Without a title at each field that only repeats its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's hook
        return False


class Schemas:
    """`requests` validate bodies, `queries` query strings; `answers` only describe."""

    def __init__(
        self,
        requests: Iterable[TypeAdapter[Any]],
        queries: Iterable[type[BaseModel]],
        answers: Iterable[Any],
    ) -> None:
        wanted: dict[Any, tuple[JsonSchemaMode, TypeAdapter[Any]]] = {
            **{adapter: ("validation", adapter) for adapter in requests},
            **{model: ("validation", TypeAdapter(model)) for model in queries},
            **{shape: ("serialization", TypeAdapter(shape)) for shape in answers},
        }
        keys = list(wanted)
        made, defined = TypeAdapter.json_schemas(
            [(str(i), *wanted[key]) for i, key in enumerate(keys)],
            ref_template=_PLACE + "{model}",
            schema_generator=_Bare,
        )
        self.components: Json = defined.get("$defs", {})
        self._made = {keys[int(i)]: schema for (i, _), schema in made.items()}
        # A query is no body: its fields are shown one by one, as parameters.
        self._queries = {model: self._take(self._made[model]) for model in queries}

    def of(self, shape: Any) -> Json:
        """The schema of a shape, mostly a `$ref`."""
        return self._made[shape]

    def query(self, model: type[BaseModel]) -> Json:
        """The schema of a model whose fields are query parameters."""
        return self._queries[model]

    def example(self, schema: Json) -> Any:
        """An example of the schema, put together from those of its fields.

        Raises LookupError where a field has none.
        """
        if "examples" in schema:
            return schema["examples"][0]
        if "$ref" in schema:
            return self.example(self._at(schema))
        match schema.get("type"):
            case "object":
                return {n: self.example(field) for n, field in schema["properties"].items()}
            case "array":
                return [self.example(schema["items"])]
        raise LookupError(f"no example for {schema}")

    def _take(self, schema: Json) -> Json:
        return self.components.pop(_name(schema)) if "$ref" in schema else schema

    def _at(self, schema: Json) -> Json:
        found: Json = self.components[_name(schema)]
        return found


def without_null(schema: Json) -> Json:
    """The schema of a value that is there: a query string can't say null."""
    kept = {name: value for name, value in schema.items() if name != "default" or value is not None}
    others = [one for one in kept.pop("anyOf", []) if one != {"type": "null"}]
    if len(others) == 1:
        return {**others[0], **kept}
    return {**kept, "anyOf": others} if others else kept


def _name(schema: Mapping[str, str]) -> str:
    return schema["$ref"].removeprefix(_PLACE)
