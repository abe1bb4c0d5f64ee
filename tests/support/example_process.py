"""An example of an `exec:` system: it lets another System of this project answer, from a process of its own.

Try it with `--system "exec:python tests/support/example_process.py batched"`. A system in C does the same with
structures of its own: read a line, look at its one key, answer with a line, flush.
docs/exec-protocol.md shows the lines.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from properties.systems import naming as systems
from properties.systems import wire
from spec import capabilities
from spec.operations import Finish, Operation, Step
from spec.system import System


def answer(system: System, request: dict[str, Any]) -> dict[str, Any]:
    """One answer to each request behind hello, but for close."""
    match request:
        case {"apply": operation}:
            outcome = system.apply(wire.decode(Operation, operation, "apply"))
            return wire.outcome_answer(outcome)
        case {"call": {"function": function, "arguments": arguments}}:
            return {"trace": wire.encode(system.call(function, tuple(arguments)))}
        case {"sites": True}:
            return {"sites": wire.encode(system.sites())}
        case {"cost": True}:
            return {"cost": wire.encode(system.cost())}
        case {"declines": operation} | {"link_info": operation} | {"hash_file": operation}:
            (name,) = request
            return {name: getattr(capabilities, name)(system, wire.decode(Operation, operation, name))}
        case {"step": operation}:
            return {"step": capabilities.step(system, wire.decode(Step, operation, "step"))}
        case {"finish": operation}:
            return {"finish": wire.encode(capabilities.finish(system, wire.decode(Finish, operation, "finish")))}
        case {"console": True} | {"originals": True} | {"unseen": True} | {"left_over": True}:
            (name,) = request
            return {name: wire.encode(getattr(capabilities, name)(system))}
    return {"error": f"no such request: {', '.join(request)}"}


def announced(system: System) -> dict[str, Any]:
    """The capabilities that the system has, as the answer to hello tells them."""
    values = {name: wire.encode(getattr(system, name)) for name in capabilities.VALUES if hasattr(system, name)}
    return values | {"answers": [name for name in capabilities.METHODS if hasattr(system, name)]}


def main() -> None:
    """Answers line by line, until close or the end of stdin."""
    lines = iter(sys.stdin.buffer)
    world, semantics = wire.read_hello(wire.read_line(next(lines)))
    system = systems.resolve(sys.argv[1])(world, semantics)
    write({"name": "example", "supports": sorted(kind.verb for kind in system.supports)} | announced(system))
    for line in lines:
        request = wire.read_line(line)
        if "close" in request:
            break
        write(answer(system, request))
    system.close()


def write(reply: dict[str, Any]) -> None:
    """Every answer is flushed, since the other side waits for it."""
    sys.stdout.buffer.write(wire.write_line(reply))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
