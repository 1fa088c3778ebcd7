"""Access tokens and passwords, masked in everything that is written for people or shown to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_START = r"(?:(?<![A-Za-z0-9])|(?<=[0-9]m))"  # or right behind a terminal's colour
_PATTERNS = (
    re.compile(r"(hf_|ghp_|gho_|ghs_|ghu_|github_pat_|glpat-)[A-Za-z0-9_-]{8,}"),
    re.compile(_START + r"(sk-|xox[abprs]-)(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{8,}"),
    re.compile(_START + r"(AKIA|ASIA)[A-Z0-9]{12,}"),
    re.compile(r"([Bb]earer\s+)[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/@:]*:[^\s/@]+(?=@)"),
    re.compile(
        r"((?i:api[_-]?key|(?:access|auth|api|hf)[_-]?token|passwo?r?d|secret(?:[_-]?(?:access[_-]?)?key)?)"
        r"['\"]?\s*[=:]\s*['\"]?)[A-Za-z0-9_./+=~!@#$%^&*-]{6,}"
    ),
)
_FIELD = re.compile(r"(?i)(.*_)?(api_?key|(access|auth|api|hf)_?token|token|passwo?r?d|secret(_(access_)?key)?)")
_NO_FIELD = re.compile(r"(?i)(eos|bos|pad|unk|sep|cls|mask|end|stop|think)_token")


def mask(text: str) -> str:
    """A text with what looks like an access token, a key or a password replaced by `…`.

    >>> mask("hf_abcdefghijklmnop at https://me:word@host, a task-specific key, api_key=abc123def")
    'hf_… at https://…@host, a task-specific key, api_key=…'
    """
    for pattern in _PATTERNS:
        text = pattern.sub(r"\1…", text)
    return text


def masked(value: Any, key: str = "") -> Any:
    """The same JSON value with every text in it masked, and wholly where the key says what it holds.

    >>> masked({"token": "abc", "api_key_env": "MY_KEY", "pad_token": "<pad>", "x": ["ghp_0123456789"]})
    {'token': '…', 'api_key_env': 'MY_KEY', 'pad_token': '<pad>', 'x': ['ghp_…']}
    """
    if isinstance(value, Mapping):
        return {name: masked(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    is_secret = _FIELD.fullmatch(key) and not _NO_FIELD.fullmatch(key)
    return "…" if is_secret and value else mask(value)
