"""Configs of other tools become recipes that `plan` takes, with what became of every key."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper import cli
from temper.errors import ConfigError
from temper.recipe.foreign.read import read_settings, tool_of
from temper.recipe.foreign.shell import read_commands
from temper.recipe.reader import load_recipe

GRPO = """
model_name_or_path: org/name
model_revision: v2
dataset_name: org/sums
dataset_config: main
dataset_prompt_column: problem
system_prompt: Think.
bf16: true
beta: 0.01
epsilon: 0.2
epsilon_high: 0.28
gradient_accumulation_steps: 4
per_device_train_batch_size: 16
num_generations: 8
max_prompt_length: 512
max_completion_length: 256
max_steps: 50
num_train_epochs: 1
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr_rate: 0.1}
warmup_ratio: 0.1
learning_rate: 1.0e-6
reward_funcs: [accuracy, format, my_pkg.nice]
reward_weights: [1.0, 0.5, 0.2]
scale_rewards: false
loss_type: dr_grpo
report_to: [wandb]
use_vllm: true
push_to_hub: true
logging_steps: 1
seed: 42
a_key_of_nobody: 3
"""
SFT = """
model_name_or_path: org/name
dataset_name: chat.jsonl
num_train_epochs: 3
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
use_peft: true
lora_r: 8
lora_alpha: 16
packing: true
max_length: 2048
"""
VERL = """
set -x
MODEL=${MODEL:-org/name}
# data.train_batch_size=1
python3 -m verl.trainer.main_ppo \\
    algorithm.adv_estimator=grpo data.train_files=$HOME/a.parquet data.val_files=b.parquet \\
    data.train_batch_size=64 data.max_response_length=256 \\
    actor_rollout_ref.model.path=$MODEL \\
    actor_rollout_ref.actor.optim.lr=1e-6 actor_rollout_ref.actor.ppo_mini_batch_size=16 \\
    actor_rollout_ref.actor.use_kl_loss=True actor_rollout_ref.actor.kl_loss_coef=0.001 \\
    actor_rollout_ref.actor.kl_loss_type=low_var_kl actor_rollout_ref.rollout.n=8 \\
    actor_rollout_ref.rollout.name=vllm trainer.logger='["console","wandb"]' \\
    +trainer.val_before_train=False trainer.total_training_steps=30 $@
"""
VERL_NESTED = """
data: {train_files: a.parquet, train_batch_size: 64, max_response_length: 256}
actor_rollout_ref:
  model: {path: org/name}
  actor: {ppo_mini_batch_size: 32, optim: {lr: 2.0e-6}, loss_agg_mode: seq-mean-token-mean}
  rollout: {n: 4, temperature: 0.9}
algorithm: {adv_estimator: rloo, use_kl_in_reward: true, kl_ctrl: {kl_coef: 0.002}}
trainer: {total_training_steps: 10}
"""
OPENRLHF = """
ray job submit --address="http://127.0.0.1:8265" \\
   -- python3 -m openrlhf.cli.train_ppo_ray \\
   --pretrain org/name --prompt_data org/prompts --input_key prompt --label_key answer \\
   --train_batch_size 128 --rollout_batch_size 64 --n_samples_per_prompt 4 --max_epochs 1 \\
   --generate_max_len 256 --actor_learning_rate 5e-7 --critic_learning_rate 9e-6 \\
   --init_kl_coef 0.01 --use_kl_loss --kl_estimator k3 --advantage_estimator group_norm \\
   --bf16 --packing_samples
"""
VERL_ARRAYS = """
#!/usr/bin/env bash
set -xeuo pipefail
DEVICE=${DEVICE:-$(python3 -c 'import torch_npu' 2>/dev/null && echo npu || echo gpu)}
MODEL_PATH=${MODEL_PATH:-"org/name"}
MAX=${MAX:-256}
N=4
case "${DEVICE}" in
    npu) N=16 ;;
esac
if [ "$N" -gt 8 ]; then LR=1e-5; else LR=2e-6; fi
DATA=(
    algorithm.adv_estimator=grpo
    data.train_files="['$HOME/a.parquet', '$HOME/b.parquet']"
    data.train_batch_size=$((N * 16))   # prompts
    data.max_response_length=$(( ${MAX} + 0 ))
)
ACTOR=(actor_rollout_ref.model.path="$MODEL_PATH" actor_rollout_ref.actor.optim.lr=${LR}
    actor_rollout_ref.actor.policy_loss.loss_mode=cispo actor_rollout_ref.actor.clip_ratio_low=10
    actor_rollout_ref.actor.clip_ratio_high=0.2 actor_rollout_ref.rollout.n=$N
    reward_model.overlong_buffer.enable=False reward_model.overlong_buffer.len=64)
if [[ "$DEVICE" == npu ]]; then
    ACTOR+=(actor_rollout_ref.rollout.n=2)
fi
python3 -m verl.trainer.main_ppo \\
    "${DATA[@]}" "${ACTOR[@]}" \\
    # a line in between
    trainer.total_training_steps=30 trainer.default_local_dir=$1 "$@" 2>&1 | tee log.txt
"""
VERL_SFT = """
nproc_per_node=$1
torchrun --standalone --nnodes=1 --nproc_per_node=$nproc_per_node \\
    -m verl.trainer.fsdp_sft_trainer data.train_files=$HOME/gsm8k/train.parquet data.train_batch_size=32 \\
    optim.lr=1e-4 model.path=org/name model.lora_rank=8 model.lora_alpha=16 trainer.total_epochs=2
"""
OPENRLHF_GROUPED = """
srun --nodes=1 bash -c \\
"pip install ray \\
&& ray job submit --address=http://localhost:8265 --runtime-env-json='{\\"working_dir\\": \\"/x\\"}' \\
    -- python3 -m openrlhf.cli.train_ppo_ray \\
    --actor.model_name_or_path org/name --data.prompt_dataset org/prompts --data.input_key prompt \\
    --data.label_key answer --train.batch_size 128 --rollout.batch_size 64 --rollout.n_samples_per_prompt 4 \\
    --data.max_len 768 --actor.adam.lr 5e-7 --actor.eps_clip_low_high 0.2 0.27 \\
    --algo.kl.init_coef 1e-4 --algo.kl.use_loss --algo.kl.estimator k2 --algo.advantage.estimator rloo \\
    --ds.param_dtype bf16 --ds.zero_stage 3 --vllm.num_engines 4 --eval.n_samples_per_prompt 4" &>> log
"""
OPENRLHF_SFT = """
read -r -d '' training_commands <<EOF
openrlhf.cli.train_sft \\
   --data.dataset chat.jsonl --train.batch_size 16 --train.max_epochs 1 \\
   --model.model_name_or_path org/name --adam.lr 5e-6 --model.gradient_checkpointing_enable
EOF
    # --ds.packing_samples
if [[ ${1} != "slurm" ]]; then
    deepspeed --module $training_commands
fi
"""
SKYPILOT = """
resources: {accelerators: "H100:1"}
run: |
  if [ "$SKYPILOT_NODE_RANK" == "0" ]; then
    python3 -m verl.trainer.main_ppo algorithm.adv_estimator=rloo data.train_files=a.parquet data.train_batch_size=64 \\
      actor_rollout_ref.model.path=org/name actor_rollout_ref.rollout.n=4 trainer.total_epochs=1
  fi
"""
TRL_COMMAND = """
accelerate launch --config_file zero3.yaml --num_processes 2 \\
  examples/grpo.py --model_name_or_path org/name --dataset_name org/sums --loss_type sapo \\
  --per_device_train_batch_size 16 --num_generations 8 --max_steps 10 --bf16 True
"""
TRL_MIXED = """
model_name_or_path: org/name
dataset_mixture:
  datasets:
    - {id: org/sums, config: main, split: train, weight: 1.0}
    - {id: org/more, split: train}
reward_funcs: [accuracy]
packing: false
num_generations: 4
per_device_train_batch_size: 8
packing: true
lr_scheduler_type: constant_with_warmup
"""
LAUNCH = "accelerate launch src/grpo.py --config recipes/grpo.yaml --learning_rate 3e-6\n"
CASES = {
    "grpo.yaml": (GRPO, "trl", "grpo"), "sft.yaml": (SFT, "trl", "sft"), "verl.sh": (VERL, "verl", "grpo"),
    "verl.yaml": (VERL_NESTED, "verl", "grpo"), "openrlhf.sh": (OPENRLHF, "openrlhf", "grpo"),
    "arrays.sh": (VERL_ARRAYS, "verl", "grpo"), "verl_sft.sh": (VERL_SFT, "verl", "sft"),
    "grouped.sh": (OPENRLHF_GROUPED, "openrlhf", "grpo"), "here.sh": (OPENRLHF_SFT, "openrlhf", "sft"),
    "job.yaml": (SKYPILOT, "verl", "grpo"), "command.sh": (TRL_COMMAND, "trl", "grpo"),
    "mixed.yaml": (TRL_MIXED, "trl", "grpo"),
}  # fmt: skip


@pytest.fixture
def made(tmp_path, monkeypatch, capsys):
    """Runs the command on one of the cases, with files of ours named; gives its JSON."""
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"{n}+1", "answer": str(n + 1)} for n in range(1100)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reply = "<think>1+1</think><answer>2</answer>"
    (tmp_path / "chat.jsonl").write_text(json.dumps({"prompt": "1+1", "completion": reply}) + "\n")

    def run(name: str, *more: str) -> dict:
        (tmp_path / name).write_text(CASES[name][0] if name in CASES else LAUNCH)
        assert cli.main(["import-config", name, "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("name", CASES)
def test_every_key_is_accounted_for_and_plan_takes_the_recipe(made, name, tmp_path, capsys):
    _, tool, kind = CASES[name]
    data = "chat.jsonl" if kind == "sft" else "sums.jsonl"
    found = made(name, "--model", "tiny-base", "--train", data, "--out", "recipe.yaml")
    assert (found["tool"], found["stage"]) == (tool, kind)
    _, settings = read_settings(tmp_path / name)
    listed = [line["key"] for line in found["keys"] if line["fate"] != "defaulted"]
    assert sorted(set(listed)) == sorted({setting.key for setting in settings})
    assert all(line["reason"] or line["fate"] == "converted" for line in found["keys"])
    recipe, faults = load_recipe("recipe.yaml")
    assert (recipe.stages[0].kind, faults) == (kind, [])
    if name in ("grpo.yaml", "sft.yaml", "arrays.sh"):
        capsys.readouterr()
        code = cli.main(["plan", "recipe.yaml"])
        assert code in (0, 9), capsys.readouterr().err  # 9: an optional part that the config asks for


def stage(found: dict) -> dict:
    return found["recipe"]["stages"]["sft" if found["stage"] == "sft" else "rl"]


def test_trl_grpo(made):
    found = made("grpo.yaml")
    wanted = {
        "model": "org/name@v2", "kl_penalty": 0.01, "clip_range": 0.2, "clip_range_high": 0.28, "prompts_per_step": 8,
        "num_generations": 8, "max_steps": 50, "warmup_steps": 5, "min_lr_ratio": 0.1, "dtype": "bfloat16",
        "reward_funcs": ["accuracy", "format"], "reward_weights": [1.0, 0.5], "advantage": "none",
        "aggregation": "constant", "lr_scheduler_type": "cosine",
    }  # fmt: skip
    assert wanted.items() <= stage(found).items()
    task = found["recipe"]["tasks"]["train"]
    assert task["train"] == "hf://org/sums?split=train&name=main"
    assert task["columns"] == {"prompt": "problem"}
    assert found["recipe"]["seed"] == 42
    dropped = {line["key"]: line["reason"] for line in found["keys"] if line["fate"] == "dropped"}
    assert "none is cut" in dropped["max_prompt_length"]
    assert dropped["a_key_of_nobody"] == "temper has no such key"


def test_the_names_of_tutorials_are_taken_for_what_they_are(tmp_path, capsys):
    config = "model_name_or_path: org/name\ndataset_name: sums.jsonl\nreward_funcs: [accuracy]\nclip_range: 0.3\n"
    (tmp_path / "tutorial.yaml").write_text(config + "kl_penalty: 0.01\nmax_steps: 5\n")
    assert cli.main(["import-config", str(tmp_path / "tutorial.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not [line for line in found["keys"] if line["key"] == "kl_penalty" and line["fate"] != "converted"]
    assert (stage(found)["clip_range"], stage(found)["kl_penalty"]) == (0.3, 0.01)


def test_trl_sft(made):
    wanted = {"batch_size": 16, "num_train_epochs": 3, "lora": {"r": 8, "alpha": 16}, "learning_rate": 2e-5}
    assert wanted.items() <= stage(made("sft.yaml")).items()


def test_verl_by_script_and_by_yaml(made):
    script = made("verl.sh")
    wanted = {
        "num_mini_batches": 4, "prompts_per_step": 64, "kl_penalty": 0.001, "kl_placement": "loss", "max_steps": 30,
        "kl_estimator": "k3", "num_generations": 8, "learning_rate": 1e-6, "model": "org/name", "advantage": "std",
    }  # fmt: skip
    assert wanted.items() <= stage(script).items()
    assert script["recipe"]["tasks"]["train"] == {"train": "~/a.parquet", "test": "b.parquet"}
    nested = stage(made("verl.yaml"))
    wanted = {"num_mini_batches": 2, "advantage": "rloo", "kl_penalty": 0.002, "kl_placement": "reward",
              "aggregation": "sequence_mean", "temperature": 0.9, "num_generations": 4}  # fmt: skip
    assert wanted.items() <= nested.items()


def test_openrlhf(made):
    wanted = {"prompts_per_step": 64, "num_generations": 4, "num_mini_batches": 2, "kl_penalty": 0.01,
              "kl_placement": "loss", "advantage": "std", "num_iterations": 1, "learning_rate": 5e-7}  # fmt: skip
    assert wanted.items() <= stage(made("openrlhf.sh")).items()


def test_arrays_sums_defaults_and_conditions_of_a_script(made):
    found = made("arrays.sh")
    wanted = {
        "model": "org/name", "prompts_per_step": 64, "max_completion_length": 256, "num_generations": 4,
        "max_steps": 30, "learning_rate": 1e-5, "surrogate": "cispo", "ratio_cap": 1.2, "aggregation": "token_mean",
    }  # fmt: skip
    assert wanted.items() <= stage(found).items()
    assert not {"clip_range", "overlong_cache"} & set(stage(found))
    assert found["recipe"]["tasks"]["train"]["train"] == "~/a.parquet"
    [line] = [line for line in found["keys"] if line["key"] == "trainer.default_local_dir"]
    assert (line["fate"], line["where"].rpartition(":")[2]) == ("dropped", "28")


def test_sft_of_verl_and_of_openrlhf(made):
    wanted = {"model": "org/name", "batch_size": 32, "num_train_epochs": 2, "lora": {"r": 8, "alpha": 16}}
    assert wanted.items() <= stage(made("verl_sft.sh")).items()
    wanted = {"model": "org/name", "batch_size": 16, "num_train_epochs": 1, "learning_rate": 5e-6, "data": "chat.jsonl",
              "gradient_checkpointing": True}  # fmt: skip
    assert wanted.items() <= stage(made("here.sh")).items()


def test_openrlhf_with_keys_in_groups(made):
    wanted = {
        "prompts_per_step": 64, "num_generations": 4, "num_mini_batches": 2, "kl_penalty": 1e-4, "advantage": "rloo",
        "kl_estimator": "k2", "clip_range": 0.2, "clip_range_high": 0.27, "learning_rate": 5e-7, "dtype": "bfloat16",
        "max_completion_length": 768, "model": "org/name",
    }  # fmt: skip
    found = made("grouped.sh")
    assert wanted.items() <= stage(found).items()
    reasons = {line["key"]: line["reason"] for line in found["keys"]}
    assert "evaluate" in reasons["eval.n_samples_per_prompt"]
    assert "--ranks" in reasons["ds.zero_stage"]


def test_a_job_with_the_command_in_it_and_a_command_of_trl(made):
    assert {"advantage": "rloo", "num_generations": 4, "num_train_epochs": 1}.items() <= stage(made("job.yaml")).items()
    wanted = {"surrogate": "sapo", "prompts_per_step": 4, "max_steps": 10, "aggregation": "sequence_mean"}
    assert wanted.items() <= stage(made("command.sh")).items()


def test_a_mixture_a_repeated_key_and_a_rate_that_does_not_fall(made):
    found = made("mixed.yaml")
    assert found["recipe"]["tasks"]["train"]["train"] == "hf://org/sums?split=train&name=main"
    assert "min_lr_ratio" not in stage(found)
    assert stage(found)["num_train_epochs"] == 3  # TRL's own
    told = [line["reason"] for line in found["keys"] if line["key"] == "packing"]
    assert len(told) == 2
    assert "again" in told[0]


def test_a_script_that_names_its_config(made, tmp_path, capsys):
    (tmp_path / "launch.sh").write_text(LAUNCH)
    assert cli.main(["import-config", "launch.sh"]) == 2
    assert "import-config recipes/grpo.yaml" in capsys.readouterr().err
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/grpo.yaml").write_text(GRPO)
    assert {"learning_rate": 3e-6, "max_steps": 50}.items() <= stage(made("launch.sh")).items()


def test_training_on_pairs_is_told_to_be_none_here(tmp_path, capsys):
    for more in ("--chosen_key chosen", "--data.chosen_key chosen", "--beta 0.1", "--teacher_model org/large"):
        (tmp_path / "a.sh").write_text(f"deepspeed --module x --pretrain m --dataset org/pairs --max_len 9 {more}\n")
        assert cli.main(["import-config", str(tmp_path / "a.sh")]) == 2
        assert "reward_model" in capsys.readouterr().err


@given(st.text(alphabet="ab=$(){}[]'\"`\\ \n#;|&<>-@:.1", max_size=60))
def test_no_text_stops_the_reader_of_scripts(text):
    try:
        commands = read_commands("x=1\n" + text, "a.sh")
    except ConfigError:
        return  # a quotation that is not closed
    assert all(word.line >= 1 for command in commands for word in command)


def test_what_is_no_config_is_told(tmp_path, capsys):
    for name, text in (("a.yaml", "x: 1\n"), ("b.yaml", ""), ("c.sh", "echo hello\n"), ("d.yaml", "stages: {}\n")):
        (tmp_path / name).write_text(text)
        assert cli.main(["import-config", str(tmp_path / name)]) == 2
    (tmp_path / "dpo.yaml").write_text("model_name_or_path: m\ndataset_name: d\nloss_type: sigmoid\nbeta: 0.1\n")
    assert cli.main(["import-config", str(tmp_path / "dpo.yaml")]) == 2
    assert "reward_model" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "run"])
def test_another_tools_config_given_as_a_recipe_is_told_so_once(tmp_path, capsys, command):
    path = tmp_path / "grpo.yaml"
    path.write_text(GRPO)
    assert cli.main([command, str(path)]) == 2
    told = capsys.readouterr().err
    assert told.count("error: ") == 1
    assert "temper import-config" in told


def test_a_recipe_is_no_other_tools_config():
    assert tool_of(["stages", "learning_rate", "beta"]) is None
