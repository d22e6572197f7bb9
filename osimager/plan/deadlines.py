"""How long each stage may take: by accelerator, and as the user says."""

from __future__ import annotations

from collections.abc import Sequence

from osimager.events import Stage
from osimager.plan.facts import Accelerator
from osimager.plan.model import Deadline

# Seconds with hardware acceleration: four times what the slowest installers were seen to take (a full RHEL DVD over
# ten minutes), since a deadline is for what is broken; `machine/watch` names what is merely stuck much sooner.
_NATIVE_S: dict[Stage, float] = {
    Stage.RESOLVE: 120,
    Stage.FETCH: 6 * 3600,
    Stage.SEED: 60,
    Stage.INSTALL: 3600,
    Stage.START: 60,
    Stage.CONNECT: 300,
    Stage.PROVISION: 3600,
    Stage.SEAL: 300,
    Stage.STOP: 120,
    Stage.CONVERT: 1800,
    Stage.VERIFY: 300,
    Stage.PUBLISH: 60,
}
_IN_GUEST = frozenset({Stage.INSTALL, Stage.CONNECT, Stage.PROVISION, Stage.SEAL, Stage.STOP, Stage.VERIFY})
# TCG was measured at 8 to 20 times the native time for CPU-bound work, and near 1 for the disk: 3 is the whole's.
_TCG_FACTOR = 3.0


def slowness(accelerator: Accelerator) -> float:
    """Give how much longer a guest's work may take than on real hardware."""
    return _TCG_FACTOR if accelerator is Accelerator.TCG else 1.0


def make_deadlines(accelerator: Accelerator, asked: Sequence[Deadline]) -> tuple[Deadline, ...]:
    """Give every stage's deadline; `asked` ones are taken as they are."""
    slow = slowness(accelerator)
    own = {stage: seconds * (slow if stage in _IN_GUEST else 1.0) for stage, seconds in _NATIVE_S.items()}
    own.update({deadline.stage: deadline.seconds for deadline in asked})
    return tuple(Deadline(stage, own[stage]) for stage in Stage)
