"""``GET /docs``: the OpenAPI description as one plain page, which needs nothing from the network."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body{{font:1rem/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}
code,pre{{font-size:.9rem}} pre{{overflow:auto;background:#8882;padding:.7rem}} summary{{cursor:pointer}}
section{{border-top:1px solid #8886;margin-top:1.5rem}} b.method{{display:inline-block;min-width:4.5rem}}
</style><h1>{title} <small>{version}</small></h1><p>{description}</p>
<p>For machines: <a href="/openapi.json">/openapi.json</a></p>"""


def render_docs(openapi: dict[str, Any]) -> str:
    """HTML of an OpenAPI description."""
    info = openapi["info"]
    parts = [
        _HEAD.format(
            title=escape(info["title"]),
            version=escape(info["version"]),
            description=escape(info.get("description", "")).replace("\n\n", "</p><p>"),
        )
    ]
    for path, methods in openapi["paths"].items():
        parts += [_operation(path, method, operation) for method, operation in methods.items()]
    schemas = openapi.get("components", {}).get("schemas", {})
    parts.append("<section><h2>Schemas</h2>")
    parts += [
        f'<details id="{escape(n)}"><summary><code>{escape(n)}</code></summary>{_json(s)}</details>'
        for n, s in schemas.items()
    ]
    return "\n".join([*parts, "</section></html>"])


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    answers = ", ".join(f"{code} {escape(answer['description'])}" for code, answer in operation["responses"].items())
    detail = {key: operation[key] for key in ("parameters", "requestBody") if key in operation}
    return (
        f'<section><h2><b class="method">{method.upper()}</b> <code>{escape(path)}</code></h2>'
        f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p><p>Answers: {answers}</p>"
        + (f"<details><summary>Parameters</summary>{_json(detail)}</details>" if detail else "")
        + "</section>"
    )


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"
