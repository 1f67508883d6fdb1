"""Indexes find replicas: whoever fits ends up somewhere for good, and nobody is driven out in turn."""

import math
import random
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from cluster.routing import UNMISSED_S, Holding, home_of, unmissed_s


def holding(room: bool = False, **unasked_s: float) -> Holding:
    return Holding(unasked_s, room)


def test_that_leaves_which_was_asked_for_longest_ago() -> None:
    held = {"x": holding(a=1, b=9), "y": holding(c=4), "z": holding(d=2)}
    assert unmissed_s(held) == {"x": 9, "y": 4, "z": 2}
    assert home_of("new", held) == "x"


def test_nothing_is_lost_where_there_is_room_or_another_copy_or_nothing_yet() -> None:
    held = {"x": holding(a=1, room=True), "y": holding(b=1), "z": holding(b=2), "w": holding()}
    assert unmissed_s(held) == dict.fromkeys("xyzw", math.inf)
    assert {home_of(str(number), held) for number in range(60)} == {*"xyzw"}


def test_a_busy_index_takes_a_place_only_where_nobody_asks_any_more() -> None:
    held = {"x": holding(a=0), "y": holding(b=UNMISSED_S - 1)}
    assert home_of("a", held, holders={"x"}) is None
    assert home_of("a", held | {"y": holding(b=UNMISSED_S)}, holders={"x"}) == "y"
    assert home_of("a", {"x": holding(a=0)}, holders={"x"}) is None


class Simulated:
    """Replicas that hold so many indexes each; every request is a second later."""

    def __init__(self, first: Mapping[str, Sequence[str]], places: int) -> None:
        self.asked: dict[str, dict[str, int]] = {
            replica: {name: -place for place, name in enumerate(names)} for replica, names in first.items()
        }
        self.places, self.now, self.loads = places, 0, 0

    def ask(self, wanted: str, choice: random.Random) -> None:
        self.now += 1
        held = {
            replica: Holding({name: self.now - at for name, at in asked.items()}, len(asked) < self.places)
            for replica, asked in self.asked.items()
        }
        holders = [replica for replica, asked in self.asked.items() if wanted in asked]
        taken = choice.choice(holders) if holders else home_of(wanted, held)
        assert taken is not None
        asked = self.asked[taken]
        if wanted not in asked:
            self.loads += 1
            if len(asked) == self.places:
                del asked[min(asked, key=asked.__getitem__)]
        asked[wanted] = self.now


@given(st.data())
def test_indexes_that_fit_are_loaded_no_more_after_a_while(data: st.DataObject) -> None:
    """Whatever was there before, and also where one that nobody asks for any more holds a place."""
    places = data.draw(st.integers(1, 3), "places")
    replicas = [
        f"replica-{data.draw(st.integers(0, 999))}-{number}" for number in range(data.draw(st.integers(1, 4)))
    ]
    names = [f"index-{number}" for number in range(places * len(replicas) + 2)]
    stored = st.lists(st.sampled_from(names), max_size=places, unique=True)
    simulated = Simulated({replica: data.draw(stored) for replica in replicas}, places)
    wanted = data.draw(st.permutations(names))[: data.draw(st.integers(1, places * len(replicas)))]
    choice = random.Random(data.draw(st.integers(0, 99)))
    for _ in range(60):
        for name in wanted:
            simulated.ask(name, choice)
    settled = simulated.loads
    for _ in range(10):
        for name in wanted:
            simulated.ask(name, choice)
    assert simulated.loads == settled
