"""How often the host waits for the device: what makes a GPU slow, and what a CPU can count without one."""

from collections.abc import Callable

import torch as th
from torch.profiler import ProfilerActivity, profile

# Operations that read a number from the device, or whose result has a size that only the device knows, and the calls of CUDA
# that wait. `aten::item` and `aten::is_nonzero` end in `_local_scalar_dense`; to count them too would count one wait twice.
# A device-wide wait is not among them: the profiler itself ends with one.
READS = frozenset(
    {
        "aten::_local_scalar_dense",
        "aten::nonzero",
        "aten::masked_select",
        "aten::_unique2",
        "aten::unique_dim",
        "aten::equal",
        "cudaStreamSynchronize",
        "cudaEventSynchronize",
    }
)


def host_waits(function: Callable[[], object]) -> dict[str, int]:
    """
    What a call does for which the host has to wait for the device. On a CPU nothing waits; there the reads are counted that
    would be waits on a GPU, but not the copies from one to the other.

    :param function: called once before, so that nothing is counted that happens only at first, and once while being watched
    :return: number of each of ``READS`` that occurred; empty: the host never waits
    """
    function()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if th.cuda.is_available() else [])]
    with profile(activities=activities) as trace:
        function()
    return {event.key: event.count for event in trace.key_averages() if event.key in READS}
