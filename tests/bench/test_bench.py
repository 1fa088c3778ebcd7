"""The measuring scripts: what they promise about workloads, draws, the floor and their JSON line. No peer is run."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median

import pytest

BENCH = Path(__file__).parent.parent.parent / "bench"
sys.path.insert(0, str(BENCH))

from draws import draw_step  # noqa: E402
from floor import Floor, Rates, body_parameters, head_parameters, sampling_floor, step_floor  # noqa: E402
from processes import MemoryWatch, cpu_seconds, memory  # noqa: E402
from session import check_machine  # noqa: E402
from summary import figures, mean_floor, sampler_line, step_line, table  # noqa: E402
from workloads import WORKLOADS, Workload, add_fields, chosen, names  # noqa: E402

from temper.errors import Exit, TemperError  # noqa: E402

FOUR = ["seconds", "cpu_seconds", "tokens_per_second", "peak_memory_bytes"]


def given(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_fields(parser)
    return parser.parse_args(options)


@pytest.mark.parametrize("name", names())
def test_every_workload_of_the_table_makes_sense(name: str) -> None:
    work = chosen(name, given())
    assert work.device == ("cpu" if "cpu-" in name else "cuda")
    assert work.rows % work.group == 0


@pytest.mark.parametrize(
    ("name", "millions"),
    [("cpu-short", 0.87), ("cpu-vocab32k", 4.03), ("h200-05b", 494), ("h200-15b", 1543), ("h200-3b", 3085)],
)
def test_models_have_the_size_they_are_named_after(name: str, millions: float) -> None:
    work = WORKLOADS[name]
    assert (body_parameters(work) + head_parameters(work)) / 1e6 == pytest.approx(millions, rel=0.005)


def test_every_field_can_be_given() -> None:
    options = {
        "hidden": "64", "intermediate": "96", "layers": "2", "heads": "2", "kv_heads": "1", "vocab": "500",
        "dtype": "bfloat16", "device": "cpu", "prompts": "8", "group": "4", "prompt_tokens": "20",
        "new_tokens": "16", "lengths": "uniform", "min_new_tokens": "3", "dead_groups": "0.25", "kl": "0.1",
        "seed": "3", "peer_micro_batch": "16", "micro_batch_tokens": "512",
    }  # fmt: skip
    line = [part for name, value in options.items() for part in ("--" + name.replace("_", "-"), value)]
    work = chosen("cpu-short", given(*line, "--no-tied", "--compile"))
    assert asdict(work) == {
        **{name: type(getattr(work, name))(value) for name, value in options.items()},
        "tied": False,
        "compile": True,
    }
    assert set(options) | {"tied", "compile"} == set(asdict(work))


def test_faults_of_a_workload_are_told_together() -> None:
    with pytest.raises(TemperError) as told:
        chosen("cpu-short", given("--heads", "3", "--group", "1", "--dead-groups", "2"))
    assert len(told.value.faults) == 4  # not divisible, so also an odd head; no group; no share
    assert chosen("sample-cpu-short", given("--group", "1")).group == 1


def test_draws_are_named_by_seed_and_step() -> None:
    work = WORKLOADS["cpu-ragged"]
    assert draw_step(work, 3) == draw_step(work, 3)
    assert draw_step(work, 3) != draw_step(work, 4)
    assert draw_step(work, 3) != draw_step(Workload(**{**asdict(work), "seed": 1}), 3)


def test_skewed_lengths_keep_their_promises() -> None:
    work = Workload(lengths="skewed", prompts=1000, group=20, new_tokens=512)
    lengths = [length for group in draw_step(work, 0).lengths for length in group]
    assert min(lengths) >= 1
    assert max(lengths) == 512
    assert mean(lengths) == pytest.approx(256, rel=0.02)
    assert median(lengths) == pytest.approx(0.435 * 512, rel=0.03)
    assert sum(length == 512 for length in lengths) / len(lengths) == pytest.approx(0.203, abs=0.01)


def test_uniform_lengths_stay_within_their_bounds() -> None:
    work = Workload(lengths="uniform", prompts=1000, group=5, min_new_tokens=32, new_tokens=512)
    lengths = [length for group in draw_step(work, 0).lengths for length in group]
    assert (min(lengths), max(lengths)) == (32, 512)
    assert mean(lengths) == pytest.approx(272, rel=0.03)


def test_prompts_hold_no_special_token_and_groups_die_as_asked() -> None:
    draws = draw_step(Workload(prompts=10, dead_groups=0.4, vocab=20), 0)
    assert max(max(prompt) for prompt in draws.prompts) < 17
    assert sum(draws.alive) == 6
    assert all(draw_step(WORKLOADS["cpu-short"], 0).alive)


SMALL = Workload(
    hidden=4, intermediate=6, layers=2, heads=2, kv_heads=1, vocab=16, prompts=2, group=2, prompt_tokens=3, new_tokens=3
)
LENGTHS = ((3, 1), (2, 2))


def test_the_floor_of_sampling_is_what_hand_counting_gives() -> None:
    # A layer: queries and output 4*4 each, keys and values 4*2 each, feed-forward 3 * 4*6. The head: 16*4.
    assert (body_parameters(SMALL), head_parameters(SMALL)) == (2 * 120, 64)
    floor = sampling_floor(SMALL, LENGTHS, Rates(flops=10.0, bytes=1e12))
    attention = 4 * 4 * 2 * 6 * 1.5  # 4 * width * layers * prompt tokens * half the prompt
    assert floor.prefill == pytest.approx((2 * 240 * 6 + attention) / 10)
    assert floor.decode == pytest.approx(2 * 304 * (3 + 1) / 10)  # three rows have a second token, one a third
    floor = sampling_floor(SMALL, LENGTHS, Rates(flops=1e12, bytes=10.0))
    cached = 2 * 2 * 1 * 2 * 4  # keys and values, layers, heads, size, bytes
    cache = cached * (2 * 3 + 3 * 1) + cached * (1 * 3 + 1 * 2)
    logits = 4 * 16 * 4 * 2
    assert floor.prefill == pytest.approx(240 * 4 / 10)
    assert floor.decode == pytest.approx((2 * 304 * 4 + cache + logits) / 10)


def test_the_floor_of_training_counts_living_groups_and_their_prompt_once() -> None:
    floor = step_floor(SMALL, LENGTHS, [True, False], Rates(flops=10.0, bytes=1e12))
    attention = 32 * (3 * 1.5 + 3 * (3 + 1.5) + 1 * (3 + 0.5))
    assert floor.training == pytest.approx((6 * 240 * (3 + 4) + 6 * 64 * 4 + 3.5 * attention) / 10)
    assert floor.reference == 0
    assert floor.seconds == pytest.approx(floor.prefill + floor.decode + floor.training, rel=1e-6)


def test_a_kl_term_adds_a_reference_pass_over_every_group() -> None:
    work = Workload(**{**asdict(SMALL), "kl": 0.1})
    rates = Rates(flops=10.0, bytes=1e12)
    floor = step_floor(work, LENGTHS, [True, False], rates)
    attention = 32 * (2 * 3 * 1.5 + 3 * 4.5 + 1 * 3.5 + 2 * 2 * 4)
    assert floor.reference == pytest.approx((2 * 240 * (6 + 8) + 2 * 64 * 8 + attention) / 10)
    assert floor.training == pytest.approx(step_floor(SMALL, LENGTHS, [True, True], rates).training)


def made_up(*seconds: float, peak: int = 1000) -> dict:
    return {
        "timings": [
            {"seconds": s, "cpu_seconds": 2 * s, "others_cpu_seconds": 0, "sampling_seconds": s / 4, "tokens": 60}
            for s in seconds
        ],
        "peak_memory_bytes": peak,
    }


def test_the_json_line_holds_what_is_promised() -> None:
    temper, other = figures([made_up(1.0, 3.0), made_up(2.0, peak=900)]), figures([made_up(6.0, 8.0, 6.0)])
    line = step_line("cpu-short", "trl 1.16.0", temper, other, Floor(0.1, 0.4), Rates(1.0, 1.0), {"threads": 2})
    assert list(line)[:6] == ["workload", "peer", "temper", "other", "ratio", "floor_share"]
    assert line["temper"] == dict(zip(FOUR, (2.0, 4.0, 30.0, 1000), strict=True))
    assert line["other"] == dict(zip(FOUR, (6.0, 12.0, 10.0, 1000), strict=True))
    assert (line["ratio"], line["floor_share"], line["threads"]) == (3.0, 0.25, 2)
    assert line["spread"]["temper"]["training_seconds"] == 1.5
    assert json.loads(json.dumps(line)) == line


def test_a_sampler_that_could_not_run_keeps_its_row() -> None:
    temper = figures([made_up(1.0)])
    others = {"generate": figures([made_up(2.0)]), "static": figures([made_up(4.0)]), "continuous": "no such device"}
    line = sampler_line("sample-cpu-short", temper, others, Floor(0.1, 0.4), Rates(1.0, 1.0), {})
    assert list(line)[:5] == ["workload", "temper", "others", "ratios", "floor_share"]
    assert line["others"]["continuous"] == {"error": "no such device"}
    assert line["ratios"] == {"generate": 2.0, "static": 4.0, "continuous": None}
    assert "no such device" in table({"temper": temper, **others}, True)


def test_the_floor_of_a_run_is_the_mean_of_its_steps() -> None:
    steps = [draw_step(WORKLOADS["cpu-ragged"], number) for number in (1, 2)]
    rates = Rates(1e9, 1e9)
    apart = [step_floor(WORKLOADS["cpu-ragged"], one.lengths, one.alive, rates).seconds for one in steps]
    together = mean_floor(WORKLOADS["cpu-ragged"], steps, rates, False)
    assert together.seconds == pytest.approx(mean(apart))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc, which only Linux has")
def test_a_machine_that_lacks_what_is_needed_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = argparse.Namespace(rounds=1, steps=1, threads=1)
    with pytest.raises(TemperError, match="no_such_peer") as told:
        check_machine(WORKLOADS["cpu-short"], ["no_such_peer"], counts)
    assert (told.value.code, told.value.faults[0].fix) == (Exit.OPTIONAL_PART, 'pip install -e ".[bench]"')
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(TemperError, match="CUDA") as told:
        check_machine(WORKLOADS["h200-05b"], [], counts)
    assert told.value.code == Exit.RESOURCES


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc, which only Linux has")
def test_cpu_time_and_memory_of_children_are_counted() -> None:
    work = "x = bytearray(64_000_000)\nprint(flush=True)\nwhile True: sum(range(10_000))"
    before = cpu_seconds(os.getpid())
    with subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE) as child:
        watch = MemoryWatch(os.getpid())
        watch.start()
        try:
            child.stdout.readline()  # it has its memory
            while cpu_seconds(child.pid) < 0.2:
                pass
            living = cpu_seconds(os.getpid())
            assert memory(child.pid) > 64_000_000
        finally:
            child.kill()
        peak = watch.stop()
    assert living - before >= 0.2
    assert cpu_seconds(os.getpid()) >= living - 0.02  # what has ended is still counted
    assert peak > 64_000_000


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["run.py", "--workload", "no-such"], 2, "invalid choice"),
        (["run.py", "--workload", "cpu-short", "--heads", "3"], 2, "not divisible"),
        (["run.py", "--workload", "cpu-short", "--rounds", "0"], 2, "at least 1"),
    ],
)
def test_a_wrong_command_line_ends_with_code_2(options: list[str], code: int, said: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(BENCH.parent / "src")}
    done = subprocess.run(
        [sys.executable, str(BENCH / options[0]), *options[1:]], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
