"""Programs that a model wrote: run where they can do no harm (`sandbox.py`), judged by tests that they cannot see
(`grader.py`).

Usable on its own: nothing here knows of training, or of torch.
"""

from temper.code.grader import VERDICTS, Grade, Outcome, Scoring, Verdict, grade, grade_all, grade_program
from temper.code.limits import Limits, Ran, Runner
from temper.code.refusals import SandboxError
from temper.code.sandbox import Sandbox
from temper.code.tests import Call, Script, Stdin, Tests

__all__ = [
    "VERDICTS", "Call", "Grade", "Limits", "Outcome", "Ran", "Runner", "Sandbox", "SandboxError", "Scoring", "Script",
    "Stdin", "Tests", "Verdict", "grade", "grade_all", "grade_program",
]  # fmt: skip
