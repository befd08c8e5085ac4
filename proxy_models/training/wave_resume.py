"""Which runs of a wave can go on together: a kill, or another set of runs, may have left them at different steps."""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet


def together(steps: Sequence[AbstractSet[int]]) -> list[tuple[int, list[int]]]:
    """Groups of members that share a checkpoint, with its step (0: from the start), the largest group first.

    ``steps`` are each member's checkpoints. A member is in exactly one group. A step that most share goes before a
    later one that few have: a kill between two checkpoints of a wave leaves some members with one more than others.
    """
    left = {member: set(own) or {0} for member, own in enumerate(steps)}
    groups: list[tuple[int, list[int]]] = []
    while left:
        shared = Counter(step for own in left.values() for step in own)
        step = max(shared, key=lambda one: (shared[one], one))
        members = [member for member, own in left.items() if step in own]
        groups.append((step, members))
        for member in members:
            del left[member]
    return groups
