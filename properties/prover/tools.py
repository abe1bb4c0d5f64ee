"""capstone and unicorn for an architecture, by the names that its record has for them."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import capstone  # type: ignore[import-untyped]
import unicorn

from properties.prover.architecture import Architecture

__all__ = ["disassembler", "emulator", "register_number", "register_numbers"]


def disassembler(architecture: Architecture) -> Any:
    """A new capstone.Cs."""
    machine, mode = architecture.tools_name
    return capstone.Cs(getattr(capstone, f"CS_ARCH_{machine}"), getattr(capstone, f"CS_MODE_{mode}"))


def emulator(architecture: Architecture) -> Any:
    """A new unicorn.Uc. Kernel addresses need the virtual TLB: a physical address is cut to 52 bits."""
    machine, mode = architecture.tools_name
    made: Any = unicorn.Uc(getattr(unicorn, f"UC_ARCH_{machine}"), getattr(unicorn, f"UC_MODE_{mode}"))  # type: ignore[attr-defined, no-untyped-call]
    made.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
    return made


@cache
def register_numbers(architecture: Architecture) -> dict[str, int]:
    """Unicorn's numbers of the general and readable registers and of pc, by our names."""
    names = (*architecture.general, *architecture.readable, architecture.pc)
    return {name: register_number(architecture, architecture.register_aliases.get(name, name)) for name in names}


def register_number(architecture: Architecture, name: str) -> int:
    """Unicorn's number of a register, by its own name."""
    machine, _ = architecture.tools_name
    numbers = importlib.import_module(f"unicorn.{machine.lower()}_const")
    return int(getattr(numbers, f"UC_{machine}_REG_{name.upper()}"))
