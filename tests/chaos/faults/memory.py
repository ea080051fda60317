"""Too little memory."""

import contextlib
import resource
from types import MappingProxyType

from tests.bench import processes
from tests.chaos.faults import Fault, fault
from tests.support.waiting import pass_time

_NONE = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@fault
class MemoryLimited(Fault):
    name = "memory-limit"
    injects = "a limit of the address space (RLIMIT_AS) of all workers, up to 1 MiB above what they have, while contents are large"
    guarantees = (
        "Requests that find no memory are answered 503 or not at all; a worker may end, and is replaced; nothing"
        " acknowledged is lost."
    )
    excuses = frozenset({"defects"})  # a worker whose main thread finds no memory ends, and its log says where
    every, lasts = (1.0, 3.0), (1.0, 4.0)
    orders = MappingProxyType({"sizes": "large", "mixture": "few"})

    def details(self, chance):
        return {"KiB": chance.randrange(1025)}

    def inject(self, subject, step):
        workers = [pid for receiver in subject.receivers for pid in receiver.workers()]
        for pid in workers:
            with contextlib.suppress(OSError):
                most = processes.memory(pid, "VmSize") + (step.details["KiB"] << 10)
                resource.prlimit(pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        pass_time(step.lasts, "the limit holds for as long as the schedule says")
        for pid in workers:
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_AS, _NONE)
