"""What tests of the prover say of verdicts and obligations."""

from __future__ import annotations

import re

from properties.prover.verdicts import Verdict

__all__ = ["pattern", "refuted"]


def refuted(verdict: Verdict) -> str:
    """The obligation that is broken, and has been seen to be, in execution."""
    assert verdict.counterexample is not None, verdict
    return verdict.counterexample.obligation


def pattern(obligation: str) -> str:
    """An obligation without what tells its instances apart."""
    kind = r"(fentry|fexit|fmod_ret|lsm|fsession) [0-9]+( at entry| at return)?"
    step = rf"{kind}(: (enter|program|exit))?|original|tramp_(enter|exit)|leave"
    text = re.sub(rf"^({step}): ", "STEP: ", obligation)
    text = re.sub(r"STEP: .* is reached", "STEP: it is reached", text)
    return re.sub(r"\br([a-d]x|[sd]i|[sb]p|[0-9]+)\b|[0-9]+", "N", text)
