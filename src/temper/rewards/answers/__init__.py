"""The exact answer checker: gold answers are read, a model's answers are compared with them (`judge.py`)."""

from temper.rewards.answers.judge import Answer, Gold, answer_of, final_form, read_gold, same_gold

__all__ = ["Answer", "Gold", "answer_of", "final_form", "read_gold", "same_gold"]
