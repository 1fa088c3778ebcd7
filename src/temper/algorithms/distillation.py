"""How far a student is from its teacher, by the whole distribution of the next token.

One value a target token; the gradient is the student's alone. Shapes: M targets, V tokens of the shared vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def forward_kl(student_logits_MV: Tensor, teacher_logits_MV: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) = Σ_v p_T (log p_T − log p_S), p = softmax(logits / temperature), in float32 or wider.

    Distillation of logits (1503.02531, section 2, without its factor temperature²). The student must cover all that
    the teacher does. Its gradient with respect to the student's logits is (p_S − p_T) / temperature.

    >>> teacher = torch.tensor([[0.75, 0.25]]).log()
    >>> forward_kl(torch.zeros(1, 2), teacher)  # 0.75 ln 1.5 + 0.25 ln 0.5
    tensor([0.1308])
    """
    student, teacher = _logprobs(student_logits_MV, temperature), _logprobs(teacher_logits_MV.detach(), temperature)
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(student_logits_MV: Tensor, teacher_logits_MV: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(student ‖ teacher) = Σ_v p_S (log p_S − log p_T), p = softmax(logits / temperature), in float32 or wider.

    What MiniLLM (2306.08543, equation 1) and on-policy distillation (GKD, 2306.13649, section 3) minimise. The student
    must say nothing that the teacher would not. Its gradient with respect to the student's logits is
    p_S (log p_S − log p_T − KL) / temperature.

    >>> teacher = torch.tensor([[0.75, 0.25]]).log()
    >>> reverse_kl(torch.zeros(1, 2), teacher)  # 0.5 ln (0.5 / 0.75) + 0.5 ln (0.5 / 0.25)
    tensor([0.1438])
    >>> reverse_kl(teacher, teacher)
    tensor([0.])
    """
    student, teacher = _logprobs(student_logits_MV, temperature), _logprobs(teacher_logits_MV.detach(), temperature)
    return (student.exp() * (student - teacher)).sum(-1)


def _logprobs(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature, dim=-1)


DIVERGENCES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
}
