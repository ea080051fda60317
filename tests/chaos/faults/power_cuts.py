"""The power fails: every moment of a recording, not one moment of a run (tests.chaos.powercut)."""

from tests.chaos.faults import FILE, SQLITE, Fault, fault
from tests.chaos.powercut.recording import Orders
from tests.chaos.powercut.run import Result, run

_IMAGES_A_SECOND = 20  # of the time that the run is given
_FAILED_SYNCS = 10


@fault
class PowerCut(Fault):
    name = "power-cut"
    stores = (SQLITE, FILE)
    injects = "a power cut at hundreds of moments, each with everything unsynced dropped, kept, kept in part or in another order"
    guarantees = "A store opens, has all that was acknowledged with its receipts and nothing half done, and goes on."
    failed_syncs = 0

    def own_run(self, plan, folder):
        orders = Orders(plan.store, plan.seed, defect=plan.defect, failed_syncs=self.failed_syncs)
        return as_json(run(orders, int(plan.seconds * _IMAGES_A_SECOND)), plan)


@fault
class FailedSyncs(PowerCut):
    name = "power-cut-failed-syncs"
    injects = "the same after syncs that failed and lost for good what they were to make durable"
    failed_syncs = _FAILED_SYNCS


def as_json(result: Result, plan) -> dict:
    """Return the figures of ``result`` as tests.chaos.report has those of other runs."""
    return {
        "fault": plan.fault.name,
        "store": plan.store,
        "seed": plan.seed,
        "defect": plan.defect,
        "injects": plan.fault.injects,
        "guarantees": plan.fault.guarantees,
        "seconds": round(result.seconds, 1),
        "took": round(result.seconds + result.recorded_seconds, 1),
        "operations": result.acknowledged,
        "acknowledged states": result.acknowledged_states,
        "faults": result.images,
        "images": result.images,
        "images a second": round(result.images / result.seconds, 1),
        "moments": result.points,
        "failed": sum(result.refusals.values()),
        "lost": result.lost,
        "stale": 0,
        "other findings": len(result.faults) - result.lost,
        "longest without a save, s": None,
        "longest request, s": None,
        "recovery, s": None,
        "findings": [
            {"check": one.kind, "at": one.point, "text": f"image {one.point}.{one.variant}: {'; '.join(one.wrong[:3])}"}
            for one in result.faults
        ],
        "schedule": [],
    }
