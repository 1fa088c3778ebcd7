"""The report: one HTML file that opens from disk and asks nothing of the network."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from temper.errors import Fault, ResourceError
from temper.masking import mask
from temper.record.metrics import RL_KINDS
from temper.report import sections
from temper.report.completions import completions
from temper.report.curves import main_curves, more_curves
from temper.report.gather import gather
from temper.report.programs import verdict_tables
from temper.report.replies import more_completions
from temper.report.settings import cost, harvests, memory_parts, settings

# Nothing but what stands in the file: no request, no frame, no form, whatever a model wrote.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def write(run_dir: Path, out: Path | None = None, again: int = 0) -> Path:
    """Write the report of a run, finished or not, and return its path: `<run>/report/index.html` unless `out` is given.

    `again`: seconds after which an open page looks for what has come since; 0 for never.
    Raises ResourceError when the file cannot be written.
    """
    path = Path(out) if out is not None else Path(run_dir) / "report" / "index.html"
    text = mask(page(gather(Path(run_dir)), more_completions(Path(run_dir)), again))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.writing")
        aside.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(aside, path)
    except OSError as error:
        fix = "free disk space, or name a writable file with --out"
        raise ResourceError(Fault(f"cannot write the report: {error.strerror or error}", str(path), fix=fix)) from error
    return path


def page(data: Mapping[str, Any], more: str = "", again: int = 0) -> str:
    """The page for what `gather` found; `more` are further completions, as HTML."""
    parts = [
        sections.head(data),
        sections.pipeline(data),
        sections.missing(data),
        sections.rounds(data),
        sections.results(data),
        sections.warnings(data),
        curves(data),
        verdict_tables(data["stages"], data["models"]),
        harvests(data),
        completions(data, more),
        settings(data),
        cost(data),
        memory_parts(data),
        foot(data),
    ]
    first, *rest = parts
    contents, body = with_contents("".join(rest))
    return document(f"{data['recipe']}: temper report", first + contents + body, again)


def with_contents(body: str) -> tuple[str, str]:
    """A list of the sections of `body`, and `body` with a name for each, which the list leads to."""
    titles: list[str] = []

    def named(match: re.Match[str]) -> str:
        titles.append(match[2])
        attributes = match[1] if " id=" in match[1] else f'{match[1]} id="part-{len(titles)}"'
        links.append(re.search(r' id="([^"]*)"', attributes)[1])  # type: ignore[index]
        return f"<section{attributes}><h2>{match[2]}</h2>"

    links: list[str] = []
    body = re.sub(r"<section([^<>]*)><h2>([^<>]*)</h2>", named, body)
    items = "".join(f'<li><a href="#{link}">{title}</a></li>' for link, title in zip(links, titles, strict=True))
    return (f'<nav class="contents" aria-label="Contents"><ol>{items}</ol></nav>' if len(titles) > 2 else ""), body


def document(title: str, body: str, again: int = 0) -> str:
    """A whole page, its style and script inside it. `title` is escaped here, `body` is HTML; `again` as in `write`."""
    assets = files("temper.report") / "assets"
    style = (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    refresh = f'<noscript><meta http-equiv="refresh" content="{again}"></noscript>' if again else ""
    live = f' data-again="{again}"' if again else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{escape(title)}</title>{refresh}<style>{style}</style></head>'
        f"<body{live}><main>{body}</main><script>{script}</script></body></html>\n"
    )


def curves(data: Mapping[str, Any]) -> str:
    """The curves of every stage that logs its steps, the RL stages first: they are what one looks at."""
    blocks = []
    for stage in sorted(data["stages"], key=lambda stage: stage["kind"] not in RL_KINDS):
        is_told = stage["makes"] == "evaluation" or stage["harvest"]  # by its own section
        main = [] if is_told else main_curves(stage["kind"], stage["metrics"])
        if main:
            more = "".join(more_curves(stage["kind"], stage["metrics"]))
            extra = f'<details><summary>more curves</summary><div class="charts">{more}</div></details>' if more else ""
            about = f"{escape(sections.kind_name(stage['kind']))}, {stage['steps']} steps"
            blocks.append(f"<h3>{escape(stage['name'])} <small>{about}</small></h3>")
            blocks.append(f'<div class="charts">{"".join(main)}</div>{extra}')
    return f"<section><h2>Training</h2>{''.join(blocks)}</section>" if blocks else ""


def foot(data: Mapping[str, Any]) -> str:
    run = data["run"]
    versions = run.get("versions")
    listed = " · ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else ""
    return f"<footer><p>{escape(run['directory'])}</p><p>{escape(listed)}</p></footer>"
