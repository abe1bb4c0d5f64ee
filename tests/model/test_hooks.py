"""LSM programs: model and `batched` agree on every hook, however images are shared, and the rules are reached."""

from __future__ import annotations

import pytest

from impl import batched
from properties.lockstep.coverage import Tally, lacking
from properties.lockstep.lockstep import Lockstep
from properties.proofs.installed import installed
from properties.prover.proving import prove
from properties.runs.corpus import FixedRun
from properties.runs.hooks import hooks, hooks_world
from spec.laboratory import HOOKS, LABORATORIES, laboratory
from spec.seeds import parse_operation
from spec.semantics import PRESETS, Semantics
from spec.sharing import LEVELS

RULES = {"LSM-1", "LSM-2", "LSM-3", "LSM-4", "LSM-5", "LSM-6", "TRACE-7"}
LEVELLED = (batched.per_function, batched.per_shape, batched.generic)


def take(run: FixedRun, semantics: Semantics, tally: Tally) -> None:
    lockstep = Lockstep(run.world, semantics, LEVELLED, tally=tally)
    found = lockstep.run(run.seed.steps) or lockstep.undo()

    assert () == tuple(found) + tuple(lockstep.close()), run.name


@pytest.mark.parametrize("semantics", PRESETS.values(), ids=lambda each: each.name)
def test_hooks_agree(semantics: Semantics) -> None:
    """Every run of hooks agrees and is undone, and together they reach all rules that the semantics have."""
    tally = Tally(semantics)
    for run in hooks(semantics):
        take(run, semantics, tally)

    assert RULES - lacking(semantics) == RULES & set(tally.rules)


@pytest.mark.parametrize("name", LABORATORIES)
def test_laboratories_have_the_hooks(name: str) -> None:
    """Each hook of the runs is in each kernel's laboratory, of the same shape and attributes."""
    lab, world = laboratory(name), hooks_world()

    assert set(HOOKS) == {f.name for f in world.functions if "empty" in f.attributes}
    for hook in HOOKS:
        here, there = world.by_name[hook], lab.by_name[hook]
        assert here.attributes == there.attributes
        assert here.prototype is not None
        assert there.prototype is not None
        assert here.prototype.shape == there.prototype.shape


@pytest.mark.parametrize("level", LEVELS)
def test_images_of_hooks_are_proved(level: str) -> None:
    """What `batched` puts on a hook that returns something, and on one that does not, does what its programs say."""
    system = batched.Batched(hooks_world(), PRESETS["linux-7.3"], level)
    for number, hook in enumerate(("quotactl", "sctp_sk_clone", "settime", "inode_post_setxattr")):
        sleepable = " sleepable" * (number > 1)
        for line in (
            f"bpf_prog_load p{number} lsm{sleepable} returns=-1",
            f"bpf_raw_tracepoint_open l{number} p{number} bpf_lsm_{hook} cookie=7",
        ):
            system.apply(parse_operation(line))
    images = list(installed(system))

    assert len(images) >= 2
    assert {"proved"} == {prove(image, goal).outcome for _, image, goal in images}
