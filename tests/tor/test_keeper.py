"""The keeper's decisions as transcripts, and what holds after any course of events."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tor import publishing
from tor.config import Config, Target
from tor.keeper import (
    Announce,
    Applied,
    Apply,
    Connected,
    Drain,
    Failed,
    Lost,
    Note,
    Probed,
    Published,
    Retarget,
    Rules,
    Seen,
    Tick,
    new_state,
    step,
    wanted,
)
from tor.plan import NOWHERE
from tor.status import status

ONION = "o" * 56
RED, BLUE = "10.0.0.1:9735", "10.0.0.2:9735"
BOTH = (f"9735 {RED}", f"9735 {BLUE}")


class Play:
    """A keeper fed with events, on a clock of its own."""

    def __init__(self, *targets, replace_s=0.0):
        targets = targets or (Target(address=RED), Target(address=BLUE))
        self.state = new_state(Rules(port=9735, rise=2, fall=2, replace_s=replace_s), targets)
        self.now_s = 100.0

    def __call__(self, *events):
        """The effects of these events, log lines left out."""
        effects = []
        for event in events:
            self.state, more = step(self.state, event, self.now_s)
            effects += [each for each in more if not isinstance(each, Note)]
        return effects

    def up(self, *addresses):
        return self(*(Probed(each, True, "") for each in addresses))

    def down(self, *addresses):
        return self(*(Probed(each, False, "refused") for each in addresses))


def serving(**settings):
    play = Play(**settings)
    play.up(RED, BLUE)
    play(Connected("0.4.9.11"), Applied(1, BOTH, ONION))
    return play


def test_tor_is_told_once_every_target_was_checked():
    play = Play()
    assert play(Connected("0.4.9.11")) == []
    assert play.up(RED) == []
    assert play.up(BLUE) == [Apply(1, BOTH, replaces=False)]
    assert play(Tick()) == []  # one at a time
    assert play(Applied(1, BOTH, ONION)) == [Announce(ONION)]


def test_the_second_failed_check_takes_a_target_out_and_two_good_ones_put_it_back():
    play = serving()
    assert play.down(RED) == []
    assert play.up(RED) == []
    assert play.down(RED) == []
    assert play.down(RED) == [Apply(1, BOTH[1:], replaces=True)]
    assert play(Applied(1, BOTH[1:], ONION)) == []
    assert play.up(RED) == []
    assert play.up(RED) == [Apply(1, BOTH, replaces=True)]


def test_what_changed_while_tor_was_told_is_told_next():
    play = serving()
    assert play.down(RED, RED) == [Apply(1, BOTH[1:], replaces=True)]
    assert play.up(RED, RED) == []
    assert play(Applied(1, BOTH[1:], ONION)) == [Apply(1, BOTH, replaces=True)]


def test_with_every_target_down_all_are_kept():
    play = serving()
    play.down(RED, RED)
    play(Applied(1, BOTH[1:], ONION))
    assert play.down(BLUE, BLUE) == [Apply(1, BOTH, replaces=True)]


def test_drained_targets_get_nothing_even_if_no_other_is_left():
    play = serving()
    assert play(Drain(RED, on=True)) == [Apply(1, BOTH[1:], replaces=True)]
    play(Applied(1, BOTH[1:], ONION))
    assert play(Drain(BLUE, on=True)) == [Apply(1, (f"9735 {NOWHERE}",), replaces=True)]


def test_a_new_connection_is_told_everything_and_an_old_one_is_not_believed():
    play = serving()
    assert play(Lost("closed")) == []
    assert play(Connected("0.4.9.11")) == [Apply(2, BOTH, replaces=False)]
    assert play(Seen(1, BOTH, 0), Applied(1, BOTH, ONION), Failed(1, "late")) == []
    assert play.state.busy
    assert play(Applied(2, BOTH, ONION)) == []  # the address is known


def test_a_service_that_tor_has_from_its_torrc_is_told_all_the_same():
    """Its address is to be announced, and its options may have changed, though a target was slow to be checked."""
    play = Play()
    play.up(RED)
    assert play(Connected("0.4.9.11"), Seen(1, BOTH, 0)) == []
    assert play.up(BLUE) == [Apply(1, BOTH, replaces=False)]
    assert play(Failed(1, "another tor answers"), Seen(1, BOTH, 0)) == []
    play.now_s += 1
    assert play(Tick()) == [Apply(1, BOTH, replaces=False)]
    assert play(Applied(1, BOTH, ONION)) == [Announce(ONION)]
    assert play(Seen(1, BOTH, 0), Tick()) == []


def test_a_service_that_tor_forgot_is_told_again():
    play = serving()
    assert play(Seen(1, BOTH, 3)) == []
    assert play.state.circuits == 3
    assert play(Seen(1, None, 0)) == [Apply(1, BOTH, replaces=False)]
    assert play.state.published_s is None


def test_failures_are_tried_again_ever_more_slowly():
    play = Play()
    play.up(RED, BLUE)
    assert play(Connected("0.4.9.11")) == [Apply(1, BOTH, replaces=False)]
    pauses_s = []
    for _ in range(8):
        assert play(Failed(1, "no")) == []
        failed_s = play.now_s
        while not play(Tick()):
            play.now_s += 0.25
        pauses_s.append(play.now_s - failed_s)
    assert pauses_s == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert play.state.problem == "no"


def test_an_ephemeral_service_is_replaced_at_most_so_often():
    play = serving(replace_s=30.0)
    assert play.down(RED, RED) == []
    play.now_s += 29.9
    assert play(Tick()) == []
    play.now_s += 0.1
    assert play(Tick()) == [Apply(1, BOTH[1:], replaces=True)]


def test_descriptors_of_other_services_do_not_count():
    play = serving()
    play(Published("x" * 56, ok=True), Published(ONION, ok=False))
    assert (play.state.uploads, play.state.failed_uploads, play.state.published_s) == (0, 1, None)
    play(Published(ONION, ok=True))
    assert (play.state.uploads, play.state.published_s) == (1, 100.0)


def test_a_descriptor_that_every_directory_refuses_is_a_problem_until_one_takes_it():
    play = serving()

    def problem():
        return status(play.state, Config(), play.now_s, publishing.State(announce=True))["problem"]

    play(Published(ONION, ok=False))
    assert "is this host's clock right?" in problem()
    play(Lost("restarted"), Connected("0.4.9.11"), Applied(2, BOTH, ONION))
    assert problem() is None
    play(Published(ONION, ok=False), Published(ONION, ok=True), Published(ONION, ok=False))
    assert problem() is None
    assert play.state.failed_uploads == 3


def test_new_targets_keep_what_is_known_of_the_old():
    play = serving()
    play(Drain(RED, on=True), Applied(1, BOTH[1:], ONION))
    white = "10.0.0.3:9735"
    assert play(Retarget((Target(address=RED, weight=2), Target(address=white)))) == []
    assert play.up(white) == [Apply(1, (f"9735 {white}",), replaces=True)]
    assert play(Applied(1, (f"9735 {white}",), ONION), Drain(RED, on=False)) == [
        Apply(1, (f"9735 {RED}", f"9735 {RED}", f"9735 {white}"), replaces=True)
    ]


ADDRESSES = st.sampled_from([RED, BLUE])
EVENTS = st.one_of(
    st.builds(Probed, ADDRESSES, st.booleans(), st.just("")),
    st.builds(Drain, ADDRESSES, st.booleans()),
    st.just(Connected("0.4.9.11")),
    st.just(Lost("closed")),
    st.just(Tick()),
    st.booleans(),  # tor's answer to what it was told: done, or not
)


@settings(max_examples=150)
@given(st.lists(EVENTS, max_size=60))
def test_one_thing_at_a_time_and_in_the_end_tor_has_what_it_should(course):
    play = Play()
    asked = None
    for drawn in [*course, Connected("0.4.9.11"), *[Probed(each, True, "") for each in (RED, BLUE)] * 2]:
        play.now_s += 20
        event = drawn
        if isinstance(drawn, bool):
            if asked is None:
                continue
            event = Applied(asked.term, asked.ports, ONION) if drawn else Failed(asked.term, "no")
            asked = None
        effects = [each for each in play(event) if isinstance(each, Apply)]
        if isinstance(event, Connected | Lost):
            asked = None
        assert len(effects) + (asked is not None) <= 1
        asked = effects[0] if effects else asked
    while asked is not None:
        effects = play(Applied(asked.term, asked.ports, ONION))
        asked = next((each for each in effects if isinstance(each, Apply)), None)
    assert play.state.serving == wanted(play.state) is not None
    drained = {each.address for each in play.state.targets if each.drained}
    assert not any(line.split()[1] in drained for line in play.state.serving)
