"""The API, from the description in OpenAPI that the receiver ships."""

from collections.abc import Iterator, Mapping

import yaml

from docs.generate import errors
from docs.generate.markdown import plain, table
from docs.generate.sources import OPENAPI

_METHODS = ("get", "post", "delete")


def _described() -> dict:
    return yaml.safe_load(OPENAPI.read_text())


def calls() -> str:
    """Return the headers that sign a call, then a section for each call."""
    described = _described()
    base = described["servers"][0]["url"]
    parts = ["### The three headers", _headers(described), *_paths(described, base)]
    return "\n\n".join(parts)


def schemas() -> str:
    """Return a section for each schema: a table of its members, or its text."""
    described = _described()["components"]["schemas"]
    return "\n\n".join(_schema(name, schema) for name, schema in described.items())


def error_replies() -> str:
    """Return the table of error replies, and one of them whole."""
    replies = _described()["components"]["responses"]
    rows = []
    for status, reply in replies.items():
        body = reply["content"]["application/json"]["example"]
        headers = ", ".join(f"`{name}`" for name in reply["headers"])
        rows.append((errors.link(int(status)), plain(reply["description"]), body["message"], headers))
    return table(("status", "when", "`message`", "headers"), rows)


def _headers(described: Mapping) -> str:
    schemes = described["components"]["securitySchemes"].values()
    return table(("header", "what it holds"), ((f"`{one['name']}`", plain(one["description"])) for one in schemes))


def _paths(described: Mapping, base: str) -> Iterator[str]:
    for path, item in described["paths"].items():
        for method in _METHODS:
            if method in item:
                yield _call(described, f"{method.upper()} {base}{path}", item, item[method])


def _call(described: Mapping, title: str, item: Mapping, call: Mapping) -> str:
    method, path = title.split(" ")
    parts = [f"### {call['operationId'].capitalize()}: {method} {path.removeprefix('/api/storage/1')}"]
    parts += [f"```http\n{method} {path} HTTP/1.1\n```", plain(call["summary"])]
    is_open = call.get("security") == []
    parts.append("No signature is needed." if is_open else "Signed by [the three headers](#the-three-headers).")
    parameters = [_resolved(described, one) for one in (*item.get("parameters", ()), *call.get("parameters", ()))]
    if parameters:
        parts.append(table(("parameter", "type"), ((f"`{one['name']}`", _type(one["schema"])) for one in parameters)))
    if "requestBody" in call:
        schema = call["requestBody"]["content"]["application/json"]["schema"]
        parts.append(f"**Body** `application/json`: {_type(schema)}. {plain(schema.get('description', ''))}")
    return "\n\n".join([*parts, _replies(call["responses"])])


def _replies(responses: Mapping) -> str:
    good = [(status, one) for status, one in responses.items() if status.startswith("2")]
    rows = [(f"`{status}`", f"{plain(one['description'])}{_content(one)}", _names(one)) for status, one in good]
    failing = ", ".join(errors.link(int(status)) for status in responses if not status.startswith("2"))
    return f"{table(('reply', 'meaning', 'headers'), rows)}\n\n**Errors** {failing}"


def _content(reply: Mapping) -> str:
    if "content" not in reply:
        return ""
    return f" Body: {_type(reply['content']['application/json']['schema'])}."


def _names(reply: Mapping) -> str:
    return ", ".join(f"`{name}`" for name in reply.get("headers", ()))


def _schema(name: str, schema: Mapping) -> str:
    parts = [f"### {name}"]
    if "description" in schema:
        parts.append(plain(schema["description"]))
    if "properties" in schema:
        required = schema.get("required", ())
        rows = (
            (f"`{key}`", _type(one), "yes" if key in required else "no", plain(one.get("description", "")))
            for key, one in schema["properties"].items()
        )
        parts.append(table(("member", "type", "required", "meaning"), rows))
        if schema.get("additionalProperties") is False:
            parts.append("There are no other members.")
        return "\n\n".join(parts)
    if "contentSchema" in schema:
        parts.append(f"Inside: {_type(schema['contentSchema'])}.")
    if "pattern" in schema:
        parts.append(f"```text\n{schema['pattern']}\n```")
    if "oneOf" in schema:
        parts.append(f"Either {_type(schema)}.")
    if "examples" in schema:
        parts.append(f"For example `{schema['examples'][0]}`.")
    return "\n\n".join(parts)


def _type(schema: Mapping) -> str:
    """Return what ``schema`` allows, in words."""
    match schema:
        case {"$ref": str(path)}:
            name = path.rpartition("/")[2]
            found = f"[{name}](#{name.lower()})"
        case {"const": one}:
            found = f"always `{one}`"
        case {"enum": list(values)}:
            found = " or ".join('`""`' if one == "" else f"`{'null' if one is None else one}`" for one in values)
        case {"oneOf": list(kinds)}:
            found = " or ".join(map(_type, kinds))
        case {"type": list(names)}:
            found = " or ".join(names)
        case {"type": "array", "items": items}:
            found = f"an array of {_type(items)}"
        case {"type": "object", "properties": properties}:
            found = "an object of " + ", ".join(f"`{key}`: {_type(one)}" for key, one in properties.items())
        case _:
            found = schema["type"]
    return found


def _resolved(described: Mapping, schema: Mapping) -> Mapping:
    if "$ref" not in schema:
        return schema
    found = described
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found
