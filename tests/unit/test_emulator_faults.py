import pytest

from extproc.emulator.faults import Fault, read_fault
from extproc.emulator.refusals import Refusal
from extproc.emulator.work import Usage


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("status=103", Fault(status=103)),
        ("status=503", Fault(status=503)),
        ("early-status=413", Fault(early_status=413)),
        ("slow=0.5", Fault(slow_s=0.5)),
        ("usage=zero", Fault(usage_factor=0)),
        (" die ", Fault(flag="die")),
    ],
)
def test_faults_are_read(value: str, fault: Fault) -> None:
    """Each value of the table is read as that fault."""
    assert read_fault(value) == fault


@pytest.mark.parametrize(
    "value",
    [
        "",
        "dye",
        "status",
        "status=200",
        "status=600",
        "early-status=103",
        "slow=long",
        "slow=nan",
        "slow=inf",
        "slow=-1",
        "usage=some",
        "die=1",
    ],
)
def test_an_unknown_fault_is_refused(value: str) -> None:
    """Anything else is a 400, including a fault with a status of success."""
    with pytest.raises(Refusal) as refused:
        read_fault(value)
    assert refused.value.status == 400


def test_usage_faults_change_all_reported_counts() -> None:
    """The factor applies to prompt and completion tokens alike."""
    assert read_fault("usage=negative").reported(Usage(7, 3)) == Usage(-7, -3)
