"""The program in a reply."""

from __future__ import annotations

import re

from temper.code.tests import Language

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\n`]*)\n(.*?)^[ \t]*\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL)
_NAMES: dict[str, set[str]] = {
    "python": {"python", "python3", "py", "py3", "python 3"},
    "cpp": {"cpp", "c++", "cc", "cxx", "c++17", "cpp17", "c++20"},
}


def extract(text: str, language: Language = "python") -> str | None:
    """The last fenced block of the language, or the last that names none; None where there is no such block.

    >>> extract("Try:\\n```python\\nprint(1)\\n```\\nBetter:\\n```python\\nprint(2)\\n```")
    'print(2)\\n'
    >>> extract("The answer is 2.") is None
    True
    """
    blocks = [(match.group(2).strip().lower(), match.group(3)) for match in _FENCE.finditer(_closed(text))]
    for wanted in (_NAMES[language], {""}):
        found = [code for name, code in blocks if (name.split("{")[0].strip() in wanted) and code.strip()]
        if found:
            return found[-1]
    return None


def _closed(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
