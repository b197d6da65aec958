"""Whether the machine had other things to do meanwhile.

PyTorch's threads wait for each other at every layer, so company slows the deployment more than what is beside it.
"""

import os
import resource
import time
from pathlib import Path


class Company:
    """Counts from when it is made."""

    def __init__(self):
        self._start, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def share(self) -> float:
        """What part of all processors' time other processes took, of ours counting those that have ended."""
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return max(0.0, others) / ((time.monotonic() - self._start) * os.cpu_count())


def _busy_seconds() -> float:
    """What all processors did besides idling and waiting for disks, also for other machines of the host."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """What this process and those it has waited for did."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
