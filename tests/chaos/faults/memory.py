"""Too little memory."""

import contextlib
import resource

from tests.bench import processes
from tests.chaos.faults import Fault, fault
from tests.support.waiting import pass_time

_NONE = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@fault
class MemoryLimited(Fault):
    name = "memory-limit"
    injects = (
        "a limit of the address space (RLIMIT_AS) of all workers, 1 to 4 MiB above what they have, for 1 to 4 seconds"
    )
    guarantees = "Requests that find no memory are answered 5xx or not at all; nothing acknowledged is lost."
    every, lasts = (1.0, 3.0), (1.0, 4.0)

    def details(self, chance):
        return {"MiB": chance.randrange(1, 5)}

    def inject(self, subject, step):
        workers = [pid for receiver in subject.receivers for pid in receiver.workers()]
        for pid in workers:
            with contextlib.suppress(OSError):
                most = processes.memory(pid, "VmSize") + (step.details["MiB"] << 20)
                resource.prlimit(pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        pass_time(step.lasts, "the limit holds for as long as the schedule says")
        for pid in workers:
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_AS, _NONE)
