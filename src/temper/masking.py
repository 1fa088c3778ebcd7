"""Access tokens and passwords, masked in everything that is written for people or shown to them.

What is one is told by how services begin theirs, by the name it stands behind, by its place in an address, or by
looking drawn: a long word of capitals, small letters and digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_START = r"(?:(?<![A-Za-z0-9])|(?<=[0-9]m))"  # or right behind a terminal's colour
# How tokens begin: of repositories and hubs, models behind an endpoint, clouds, trackers, chats and payments.
_PLAIN = """
    api_org_ ghp_ gho_ ghs_ ghu_ ghr_ github_pat_ glpat- glptt- gldt- glrt- glcbt- dckr_pat_ ATATT sk_live_ sk_test_
    rk_live_ rk_test_ whsec_ nvapi- lsv2_pt_ lsv2_sk_ wandb_v1_ dop_v1_ doo_v1_ hvs. hvb. pscale_tkn_ pscale_pw_
    dp.pt. dp.st. sntrys_ sntryu_ lin_api_ shpat_ shpss_ shpca_ AGE-SECRET-KEY- NRAK-
""".split()  # noqa: SIM905
# Those that begin words as well: what follows must hold a digit.
_SHORT = """
    sk- sk_ pk_ npm_ pypi- gsk_ xai- pplx- r8_ fw_ csk- jina_ pa- tvly- e2b_ rpa_ ak- as- pcsk_ dapi sbp_ tskey- AIza
    ya29. glsa_ glc_ ntn_ figd_ SG. key- SK xapp- ops_ PMAK-
""".split()  # noqa: SIM905
_HOLDERS = (
    r"(?:api|access|account|signing|private|secret|subscription|shared[_-]?access|master|encryption)[_-]?key(?:[_-]?id)?"
    r"|(?:access|auth|api|hf|refresh|id|session|bot|bearer)[_-]?token|passwo?r?d|passphrase|(?:client[_-]?)?secret|pwd"
)
_VALUE = r"[A-Za-z0-9_./+=~!@#$%^*-]"
_SAID = r"['\"]?\s{0,9}[=:]\s{0,9}['\"]?"


def _any_of(beginnings: Iterable[str]) -> str:
    return "|".join(re.escape(beginning) for beginning in sorted(beginnings, key=len, reverse=True))


_PATTERNS = (  # every repetition before what decides is bounded: no text takes long
    re.compile(r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----).*?(?=-----END|\Z)", re.DOTALL),
    re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}://)[^\s/@:]{0,200}:[^\s/@]{1,500}(?=@)"),
    re.compile(
        r"(//(?:hooks\.slack\.com/services|(?:\w{1,20}\.)?discord(?:app)?\.com/api/webhooks)/)[A-Za-z0-9_/-]{8,}"
    ),
    re.compile(r"([?&](?i:[\w-]{0,30}(?:token|key|sig|signature|secret|password|credential))=)[^\s&\"'<>]{6,}"),
    re.compile(rf"((?i:{_HOLDERS}){_SAID}){_VALUE}{{6,}}"),
    re.compile(rf"(\b[A-Z][A-Z0-9_]{{0,60}}_(?:TOKEN|KEY|SECRET|PAT|CREDENTIALS?){_SAID}){_VALUE}{{8,}}"),
    re.compile(rf"(\b(?i:\w{{0,40}}(?:token|key)){_SAID})(?=[A-Za-z_.-]{{0,80}}[0-9])[A-Za-z0-9_.-]{{20,}}"),
    re.compile(r"((?i:basic|token)\s{1,9})(?=[A-Za-z]{0,80}[0-9=+/])[A-Za-z0-9._~+/=-]{16,}"),
    re.compile(r"([Bb]earer\s{1,9})[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"(\s(?:-u|--user)[ =]['\"]?[\w.@-]{1,80}:)[^\s'\"]{4,}"),
    re.compile(r"(hf_)(?:(?=[A-Za-z]{0,40}[0-9])[A-Za-z0-9]{8,}|[A-Za-z0-9]{16,})"),
    re.compile(_START + r"(sk-|xox[abeprs]-)(?=[A-Za-z_-]{0,80}[0-9])[A-Za-z0-9_-]{8,}"),
    re.compile(_START + rf"({_any_of(_PLAIN)})[A-Za-z0-9_.-]{{8,}}"),
    re.compile(_START + rf"({_any_of(_SHORT)})(?=[A-Za-z_.-]{{0,80}}[0-9])[A-Za-z0-9_.-]{{16,}}"),
    re.compile(_START + r"(AKIA|ASIA)[A-Z0-9]{12,}"),
    re.compile(_START + r"(eyJ)[A-Za-z0-9_-]{8,999}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    re.compile(_START + r"([0-9]{8,10}:)[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    re.compile(
        _START + r"()(?=[A-Z0-9]{0,80}[a-z])(?=[a-z0-9]{0,80}[A-Z])(?=(?:[A-Za-z]{0,80}[0-9]){3})[A-Za-z0-9]{32,}"
    ),
)
_FIELD = re.compile(
    rf"(?i)(.*[_-])?({_HOLDERS}|token|authorization|cookie|credentials?|webhook(_url)?)|.*(apikey|secretkey)"
)
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
