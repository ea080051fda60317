"""No fault: what the harness itself finds in a receiver that nothing happens to must be nothing."""

from tests.chaos.faults import Fault, fault


@fault
class Nothing(Fault):
    name = "none"
    injects = "nothing: a run for comparison"
    guarantees = "No request fails."
    sample_seconds = None  # every test of a receiver under load is one

    def plan(self, chance, seconds):
        return ()

    def inject(self, subject, step):
        raise AssertionError("there is nothing to inject")
