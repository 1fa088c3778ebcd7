"""recipes/tiny_five.yaml is R1's five stages, and what judges the last one has had no part in training it."""

from __future__ import annotations

from temper.recipe.reader import load_recipe

TRAINED = ("cold_start", "reasoning_rl", "second_sft", "helpful", "harmless", "final_rl")


def test_the_five_stages_follow_one_another_as_r1s_did() -> None:
    recipe, faults = load_recipe("tiny_five")
    assert faults == []
    stages = {name: stage.config for name, stage in recipe.by_name.items()}
    begins = {name: stages[name].model for name in TRAINED[:3] + TRAINED[5:]}
    assert begins == {
        "cold_start": "@base", "reasoning_rl": "@cold_start", "second_sft": "@base", "final_rl": "@second_sft",
    }  # fmt: skip
    assert stages["second_sft"].data == "@harvest"
    harvests = {name: stages[name] for name in ("talk_data", "hard_data", "harvest")}
    assert {name: harvest.model for name, harvest in harvests.items()} == {
        "talk_data": "@cold_start", "hard_data": "@reasoning_rl", "harvest": "@reasoning_rl",
    }  # fmt: skip
    assert stages["harvest"].mix == ["@talk_data", "@hard_data"]
    assert all(harvest.min_rewards["accuracy"] == 1.0 for harvest in harvests.values())
    assert "language_consistency" in stages["harvest"].min_rewards
    rules, final = stages["reasoning_rl"], stages["final_rl"]
    assert not any(name.startswith("@") for name in rules.reward_funcs)
    assert [name for name in final.reward_funcs if name.startswith("@")] == ["@helpful", "@harmless"]
    assert all(0 < step < final.max_steps for step in final.reward_start_steps.values())
    assert "talk" not in final.reward_tasks["accuracy"] + rules.tasks


def test_what_measures_the_last_stage_trains_nothing() -> None:
    recipe, _ = load_recipe("tiny_five")
    stages = {name: stage.config for name, stage in recipe.by_name.items()}
    used = {ref.text for name in TRAINED for ref in recipe.by_name[name].references}
    assert not used & {"@judge", stages["judge"].data}
    assert stages["judge"].data not in (stages["helpful"].data, stages["harmless"].data)
    evaluation = stages["evaluation"]
    assert {"@judge", "forbidden_words"} <= set(evaluation.reward_funcs) - set(stages["final_rl"].reward_funcs)
    gains = {claim.metric for claim in evaluation.claims if claim.model == "final_rl" and claim.by >= 0}
    assert {"accuracy", "forbidden_words", "judge"} <= gains
