"""What enabled_functions shows of one site (5-byte nop or call at __fentry__)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Site"]


@dataclass(frozen=True, slots=True)
class Site:
    """One line of enabled_functions.

    count: ops that cover the site. regs, ipmodify, direct: its R, I and D. target: what the instruction calls, spelled
    as a seed spells it. entry: the address behind `direct-->`, None without one. Source: t_show() of
    kernel/trace/ftrace.c.
    """

    count: int
    regs: bool
    ipmodify: bool
    direct: bool
    target: str
    entry: str | None = None

    def __str__(self) -> str:
        letters = "".join(
            letter for letter, on in zip("RID", (self.regs, self.ipmodify, self.direct), strict=True) if on
        )
        entry = f" direct-->{self.entry}" if self.entry else ""
        return f"({self.count}){' ' + letters if letters else ''} {self.target}{entry}"
