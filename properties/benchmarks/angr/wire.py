"""An image and its goal as a JSON object, for an interpreter that has angr and none of the project's dependencies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from properties.prover.goal import Goal, Program
from properties.prover.image import Image
from spec.prototypes import Prototype, Type

__all__ = ["described", "understood"]


def described(image: Image, goal: Goal) -> dict[str, Any]:
    """What the peer is told. ValueError for what it has no words for."""
    if goal.lookup is not None or goal.patches or goal.shares_ipmodify or goal.reading != "width":
        raise ValueError("the peer proves images of one function only, as they are built, in the reading width")
    prototype = goal.prototype
    programs = [
        {
            "kind": each.kind,
            "code": each.code,
            "pointer": each.pointer,
            "cookie": each.cookie,
            "sleepable": each.sleepable,
        }
        for each in goal.programs
    ]
    return {
        "address": image.address,
        "code": image.code.hex(),
        "used": image.used,
        "arguments": [argument.size for argument in prototype.arguments],
        "returns": prototype.returns.size,
        "programs": programs,
        "function": goal.function,
        "body": goal.body,
        "site": goal.site,
        "helpers": dict(goal.helpers),
        "func_ip": goal.func_ip,
        "im": goal.im,
    }


def understood(task: Mapping[str, Any]) -> tuple[Image, Goal]:
    """The image and the goal again; of types only their sizes are left."""
    image = Image(task["address"], bytes.fromhex(task["code"]), task["used"])
    arguments = tuple(Type("", "STRUCT" if size > 8 else "INT", size) for size in task["arguments"])
    goal = Goal(
        Prototype(arguments, Type("", "INT" if task["returns"] else "VOID", task["returns"])),
        tuple(Program(**program) for program in task["programs"]),
        function=task["function"],
        body=task["body"],
        site=task["site"],
        helpers=task["helpers"],
        func_ip=task["func_ip"],
        im=task["im"],
    )
    return image, goal
