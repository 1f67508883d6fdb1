"""Who is let in: places, time and bytes, all or none of each, and when to come back."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.admission import Admission, Limits, Throughput
from service.problems import Refusal


def admission_at(
    rate: float,
    *,
    places: int = 64,
    deadline_s: float = 1e9,
    shed: list[str] | None = None,
) -> Admission:
    """With a pace that was measured, and 1,000 bytes."""
    pace = Throughput(1)
    pace.scored(1, rate)
    reasons = [] if shed is None else shed
    return Admission(Limits(places, 1000, deadline_s), pace, reasons.append)


@given(st.integers(1, 20), st.lists(st.integers(1, 8), max_size=20), st.floats(0, 100))
def test_places_are_never_more_than_there_are(size: int, counts: list[int], rate: float) -> None:
    admission, queued = admission_at(rate, places=size), 0
    with ExitStack() as places:
        for count in counts:
            if queued + count <= size:
                places.enter_context(admission.admit(count))
                queued += count
            else:
                with pytest.raises(Refusal) as refusal:
                    places.enter_context(admission.admit(count))
                assert 1 <= int(refusal.value.headers["Retry-After"]) <= 60
            assert admission.queued == queued
    assert admission.queued == 0


@pytest.mark.parametrize(("rate", "seconds"), [(0.0, 1), (0.3, 2), (2.0, 8), (50.0, 60)])
def test_retry_after_is_what_the_queue_takes(rate: float, seconds: int) -> None:
    shed: list[str] = []
    admission = admission_at(rate, places=4, shed=shed)
    with admission.admit(4), pytest.raises(Refusal) as refusal, admission.admit(1):
        pass
    assert refusal.value.headers["Retry-After"] == str(seconds)
    assert shed == ["queue"]


@given(st.floats(0.01, 40), st.floats(1, 60))
def test_nobody_is_let_in_who_would_be_answered_too_late(rate: float, deadline_s: float) -> None:
    shed: list[str] = []
    admission = admission_at(rate, places=10_000, deadline_s=deadline_s, shed=shed)
    with ExitStack() as places:
        places.enter_context(admission.admit(1))  # alone, it is tried whatever the pace
        refusal = _fill(admission, places)
        assert admission.queued == 1 or admission.queued * rate <= deadline_s
        assert (admission.queued + 1) * rate > 0.8 * deadline_s  # nor was anybody sent away who had time
        assert shed == ["deadline"]
        # Whoever comes back then meets room, if nothing else changed.
        wait = int(refusal.headers["Retry-After"])
        assert wait == 60 or admission.queued + 1 - wait / rate <= 0.8 * deadline_s / rate
    assert admission.queued == 0


def _fill(admission: Admission, places: ExitStack) -> Refusal:
    try:
        while True:
            places.enter_context(admission.admit(1))
    except Refusal as refusal:
        return refusal


def test_several_photographs_of_one_request_are_not_in_its_own_way() -> None:
    admission = admission_at(10.0, deadline_s=30)
    with admission.admit(1), admission.admit(7, already=1):
        assert admission.queued == 8
        with pytest.raises(Refusal), admission.admit(1):
            pass
    with admission.admit(1), admission.admit(1), pytest.raises(Refusal), admission.admit(7, already=1):
        pass


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 700)), max_size=30))
def test_bytes_are_never_more_than_may_be_held(growth: list[tuple[int, int]]) -> None:
    shed: list[str] = []
    admission = admission_at(0.1, shed=shed)
    with ExitStack() as stack:
        uploads = [stack.enter_context(admission.reserve_bytes()) for _ in range(4)]
        for number, count in growth:
            other_bytes = sum(upload.bytes for upload in uploads if upload is not uploads[number])
            if count > uploads[number].bytes and other_bytes + count > 1000:
                with pytest.raises(Refusal) as refusal:
                    uploads[number].grow_to(count)
                assert (refusal.value.kind.status, refusal.value.headers["Retry-After"]) == (429, "1")
            else:
                uploads[number].grow_to(count)
                assert uploads[number].bytes >= count
            assert admission.held_bytes == sum(upload.bytes for upload in uploads) <= 1000
    assert admission.held_bytes == 0
    assert set(shed) <= {"bytes"}
