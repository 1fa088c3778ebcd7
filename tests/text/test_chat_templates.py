"""Somebody else's template: a bomb, a prober or a broken one is refused within seconds and little memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from model_zoo import CHATS, make

from temper.errors import Exit, TemperError
from temper.models.checks import check_model_dir
from temper.text.chat import ChatFormat
from temper.text.template import TemplateRefused, render, try_template
from temper.text.templates import TEMPLATES

LOOP = "{{% for m in messages %}}{}{{% endfor %}}"
BOMBS = {
    "power": "{{ 'a' * 10**9 }}",
    "power of powers": "{{ 9**9**9**9 }}",
    "repetition": "{{ 'a' * 1000000000 }}",
    "repetition, turned round": "{{ 1000000000 * 'a' }}",
    "repeated list": "{{ ([0] * 1000000000) | length }}",
    "repeated twice": "{{ ('a' * 90000) * 90000 }}",
    "nested ranges": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "silent nested ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "one long range": "{{ range(1000000000) | list | length }}",
    "nested loops over a text": LOOP.format(
        "{% for a in m.content %}{% for b in m.content %}{% for c in m.content %}{% for d in m.content %}"
        "{% endfor %}{% endfor %}{% endfor %}{% endfor %}{{ m.content }}"
    ),
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "doubling by plus": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling a list": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "replacing": "{% set n = namespace(x='a') %}"
    "{% for i in range(40) %}{% set n.x = n.x | replace('a', 'aa') %}{% endfor %}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "format operator": "{{ '%1000000000d' % 1 }}",
    "format method": "{{ '{:1000000000d}'.format(1) }}",
    "justified": "{{ 'a'.ljust(1000000000) }}",
    "centred": "{{ 'a' | center(1000000000) }}",
    "indented": "{{ 'a\nb' | indent(1000000000) }}",
    "indented JSON": "{{ messages | tojson(indent=1000000000) }}",
    "endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branching macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "endless loop": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "too long": "a" * 2_000_000,
    "only in long conversations": LOOP.format("{{ m.content }}")
    + "{% if messages | length > 30 %}{{ ('%1000000000d' | format(1)) | length }}{% endif %}",
    "only after a system turn": LOOP.format("{{ m.content }}")
    + "{% if messages[0].role == 'system' %}"
    "{% for i in range(90000) %}{% for j in range(9) %}{% endfor %}{% endfor %}{% endif %}",
    "only for a reply": LOOP.format("{{ m.content }}{% if m.role == 'assistant' %}{{ 'a' * 10**9 }}{% endif %}"),
    "a generator of text": "{{ lipsum(n=100000) }}",
}  # fmt: skip
PROBES = {
    "class": "{{ ''.__class__.__mro__ }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "self": "{{ self.__init__.__globals__ }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "a method that changes things": "{{ messages.clear() }}",
}
BROKEN = {
    "unclosed block": "{% for m in messages %}",
    "unknown tag": "{% frobnicate %}",
    "unknown filter": "{{ messages | frobnicate }}",
    "unknown function": "{{ frobnicate() }}",
    "always refuses": "{{ raise_exception('never') }}",
    "says nothing": "{{ '' }}",
    "forgets the question": "{% for m in messages %}{{ m.role }}{% endfor %}",
    "no jinja at all": "((((((",
}


TRY_ALL = """
import json, resource, sys
from temper.text.template import try_template
children = lambda: resource.getrusage(resource.RUSAGE_CHILDREN)
tried = {}
for name, source in json.load(sys.stdin).items():
    before = children()
    refused = try_template(source)
    tried[name] = refused and refused.why, children().ru_utime + children().ru_stime - before.ru_utime - before.ru_stime
try:  # Linux: ru_maxrss would count the process that started this one
    status = open("/proc/self/status").read()
    own = int(status.split("VmHWM:")[1].split()[0])
except OSError:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
json.dump({"tried": tried, "kilobytes": max(own, children().ru_maxrss)}, sys.stdout)
"""


@pytest.fixture(scope="module")
def bombs() -> dict:
    """All of them, from one fresh process whose own memory is small."""
    done = subprocess.run([sys.executable, "-c", TRY_ALL], input=json.dumps(BOMBS), capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_time(bombs, name):
    refused, cpu_seconds = bombs["tried"][name]
    assert refused
    assert cpu_seconds < 2


def test_no_bomb_takes_much_memory(bombs):
    unit = 1 if sys.platform == "darwin" else 1024
    assert bombs["kilobytes"] * unit < 700e6


@pytest.mark.parametrize("source", [*PROBES.values(), *BROKEN.values()], ids=[*PROBES, *BROKEN])
def test_what_probes_or_does_not_work_is_refused(source):
    assert try_template(source)


@pytest.mark.parametrize("source", [*TEMPLATES.values(), *(template for template, _, _ in CHATS.values())])
def test_a_template_in_use_is_accepted(source):
    assert try_template(source) is None


def test_what_chat_templates_expect_is_there():
    source = """
{%- if tools is not none and tools %}{{ tools | tojson }}{% endif -%}
{%- set ns = namespace(last=0) -%}
{%- for message in messages -%}
    {%- if loop.index > 50 %}{% break %}{% endif -%}
    {%- if message['role'] == 'assistant' -%}
        {%- generation %}{{ message['content'] }}{% endgeneration -%}
    {%- else -%}
        {{- message['content'] | tojson }}
    {%- endif -%}
    {%- set ns.last = loop.index -%}
{%- endfor -%}
{{ ns.last }}{{ dict(a=1).a }}{{ strftime_now('%d %b %Y') }}
"""
    messages = [{"role": "user", "content": "a <b> & é"}, {"role": "assistant", "content": "c"}]
    assert render(source, messages, False, {}) == '"a <b> & é"c2126 Jul 2024'


def test_limits_hold_after_the_trial_too():
    messages = [{"role": "user", "content": "1000000000"}]
    asked = "messages[0].content | int"
    for source in (f"{{{{ 'a' * ({asked}) }}}}", f"{{% for i in range({asked}) %}}{{% endfor %}}"):
        with pytest.raises(TemplateRefused):
            render(source, messages, True, {})


def test_a_long_message_is_no_bomb():
    messages = [{"role": "user", "content": "word " * 400_000}]
    assert len(render("{{ messages[0].content }}", messages, True, {})) == 2_000_000


SOME = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}{{ '<assistant>' }}"


def turns(of: str) -> str:
    return SOME.replace("in messages", f"in {of}")


def content(what: str) -> str:
    return SOME.replace("m.content", what)


MISFITS = {
    "no turn of the assistant": (turns("messages if m.role != 'assistant'"), "leaves out turn 2, the assistant's"),
    "an empty turn of the assistant": (content("m.content if m.role != 'assistant'"), "leaves out turn 2"),
    "earlier replies left out": (content("m.content if loop.last or m.role == 'user'"), "leaves out turn 2"),
    "the last turn only": ("{{ messages[-1].content }}", "leaves out turn 1, the user's"),
    "the first turn only": ("{{ messages[0].content }}", "leaves out turn 2, the assistant's"),
    "turns reversed": (turns("messages | reverse"), "before an earlier one"),
    "turns reversed by a slice": (turns("messages[::-1]"), "before an earlier one"),
    "replies before questions": (turns("messages | sort(attribute='role')"), "before an earlier one"),
    "turns beyond the tenth": (turns("messages[:10]"), "leaves out turn 11"),
    "another case": (content("m.content | upper"), "leaves out turn 1"),
    "long turns cut": (content("m.content[:300]"), "leaves out turn 1"),
    "every turn twice": (content("m.content ~ m.content"), "more than once"),
    "a clock": ("{{ strftime_now('%S.%f') }}" + SOME, "it writes a clock"),
    "hours": ("{{ strftime_now('Today is %d %B, %H:%M') }}" + SOME, "it writes a clock"),
    "an address": ("{{ cycler('a') }}" + SOME, "an address in memory"),
}


@pytest.mark.parametrize(("source", "why"), MISFITS.values(), ids=MISFITS)
def test_what_cannot_be_a_conversation_is_refused_with_what_was_seen(source, why):
    refused = try_template(source)
    assert refused is not None
    assert refused.misfit
    assert why in refused.why


def test_the_date_is_one_day_in_the_form_that_was_asked_for():
    source = "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%A, %B %d') }}" + SOME
    assert try_template(source) is None
    assert render(source, [{"role": "user", "content": "a"}], False, {}).startswith("2024-07-26 Friday, July 26<user>a")


def test_a_random_choice_is_no_filter():
    assert "random" in try_template("{{ ['a', 'b'] | random }}" + SOME).why


def test_the_code_says_whether_the_recipe_or_the_model_is_wrong(tmp_path):
    backwards = SOME.replace("in messages", "in messages | reverse")
    model = make("qwen2", tmp_path / "model")
    for template, code in ((backwards, Exit.CONFIG), ("{{ 'a' * 10**9 }}", Exit.ARTIFACT)):
        (model / "chat_template.jinja").write_text(template, encoding="utf-8")
        with pytest.raises(TemperError) as error:
            ChatFormat.load(model)
        assert error.value.code == code
        assert [fault.code for fault in check_model_dir(model)] == [code]
    (tmp_path / "t.jinja").write_text(backwards, encoding="utf-8")
    with pytest.raises(TemperError) as error:
        ChatFormat.load(model, str(tmp_path / "t.jinja"))
    assert error.value.code == Exit.CONFIG
    assert "t.jinja" in error.value.faults[0].where


def test_a_reply_that_begins_otherwise_than_it_is_asked_for_cannot_be_right():
    swapped = "{% for m in messages %}<{{ 'bot' if m.role == 'user' else 'user' }}>{{ m.content }}</s>{% endfor %}"
    refused = try_template(swapped + "{% if add_generation_prompt %}<bot>{% endif %}")
    assert refused is not None
    assert "</s><bot>" in refused.why
    assert "</s><user>" in refused.why
