"""Many who ask `temper serve` at once: are all answered, rightly, and at what share of the bare sampler's speed?

    python bench/serve_load.py MODEL [--requests 1000] [--at-once 50] [--tokens 80]

Asks a server of its own with `--requests` different questions, `--at-once` at a time, greedily, and draws the same with
the sampler in batches of that size. Printed: errors, replies that differ, CPU seconds of both, and their quotient.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import queue
import resource
import subprocess
import sys
import threading
import time

from temper.models.load import load_model
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.runs import resolve_model
from temper.text.chat import ChatFormat
from temper.types import Message


def question(number: int) -> str:
    return f"{number % 97}+{number % 89}-{number % 71}+{number}"


def ask_all(port: int, args: argparse.Namespace) -> dict[int, tuple[int, str]]:
    """(status, thinking and answer) of each request."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(args.requests):
        waiting.put(number)
    found: dict[int, tuple[int, str]] = {}

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            body = {"prompt": prompts[number], "temperature": 0, "max_tokens": args.tokens}
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = json.loads(answer.read())
            found[number] = answer.status, said["choices"][0]["text"] if answer.status == 200 else str(said)

    prompts = args.prompts
    threads = [threading.Thread(target=work) for _ in range(args.at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=80)
    args = parser.parse_args()
    path = resolve_model(args.model)
    chat = ChatFormat.load(path)
    asked = [chat.prompt_ids((Message("user", question(n)),)) for n in range(args.requests)]
    args.prompts = [list(ids) for ids in asked]

    command = [sys.executable, "-m", "temper", "serve", args.model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().rsplit(":", 1)[1].split("/")[0])
        before = cpu_of(server.pid)
        began = time.perf_counter()
        found = ask_all(port, args)
        served, wall = cpu_of(server.pid) - before, time.perf_counter() - began
        server.terminate()

    engine = NativeEngine(load_model(path))
    sampling = Sampling(args.tokens, 0.0, stop_ids=chat.eos_ids)
    began, cpu = time.perf_counter(), time.process_time()
    expected: list[str] = []
    for start in range(0, args.requests, args.at_once):
        batch = [Request(ids, 0) for ids in asked[start : start + args.at_once]]
        for completion in engine.generate(batch, sampling):
            tokens = [token for token in completion.token_ids if token not in chat.eos_ids]
            expected.append(chat.tokenizer.decode_on(tokens))
    bare, bare_wall = time.process_time() - cpu, time.perf_counter() - began
    errors = sum(status != 200 for status, _ in found.values())
    wrong = sum(found[n][1] != expected[n] for n in range(args.requests))
    print(f"{args.requests} requests, {args.at_once} at once: {errors} errors, {wrong} replies that differ")
    print(f"server {served:.1f} CPU-s ({wall:.1f} s), bare sampler {bare:.1f} CPU-s ({bare_wall:.1f} s)")
    print(f"speed by CPU time: {bare / served:.2f} of the bare sampler's; peak memory of this process "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")  # fmt: skip


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
