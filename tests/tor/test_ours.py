"""Whose descriptor it is that a directory has: tor's events and directories' answers in, a verdict out."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tor.descriptor import Answer, Descriptor
from tor.ours import (
    MAX_PERIODS,
    MAX_ROUNDS,
    MAX_TAKERS,
    Created,
    NotTaken,
    Ours,
    Sent,
    Taken,
    Verdict,
    forgotten,
    hear,
    heard,
    is_anothers,
    judged,
    to_learn,
    where,
)

ONION = "o" * 56
# The blinded keys of the two periods that a tor publishes for; it shows its descriptor of the first.
SHOWN, HIDDEN = b"c" * 32, b"n" * 32
A, B = "A" * 40, "B" * 40
OURS, ANOTHERS, UNKNOWN = Verdict.OURS, Verdict.ANOTHERS, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Descriptor(SHOWN, b"s", 9), False),  # our own
        (Descriptor(SHOWN, b"t", 6), False),  # ours, from before a restart
        (Descriptor(SHOWN, b"t", 8), True),
        (Descriptor(HIDDEN, b"t", 8), False),  # of the other period
    ],
)
def test_another_tors_descriptor_is_newer_and_signed_otherwise(found, says):
    assert is_anothers(found, Descriptor(SHOWN, b"s", 7)) is says


def test_what_tor_says_of_its_publishing():
    key = base64.b64encode(HIDDEN).decode().rstrip("=")
    assert heard(f"HS_DESC CREATED {ONION} UNKNOWN UNKNOWN {key}") == Created(HIDDEN)
    assert heard(f"HS_DESC UPLOAD {ONION} UNKNOWN ${A}~relay {key} HSDIR_INDEX=0") == Sent(A, HIDDEN)
    assert heard(f"HS_DESC UPLOADED {ONION} UNKNOWN ${A}~relay") == Taken(A)
    assert heard(f"HS_DESC FAILED {ONION} UNKNOWN ${A} REASON=UPLOAD_REJECTED") == NotTaken(A)
    assert heard(f"HS_DESC REQUESTED {ONION} NO_AUTH ${A}~relay {key}") is None
    assert heard(f"HS_DESC CREATED {ONION}") is None
    assert heard("HS_DESC") is None


class Play:
    """Directories, our tor and others of its key; what is known of them here, and what is made of it.

    A tor is a letter, which stands for its signing key; time passes with each thing that it publishes.
    """

    def __init__(self, asked_for=HIDDEN):
        self.known = Ours()
        self.asked_for = asked_for
        self.held = {}
        self.now = 0
        self.life = "1"
        self.shown = None

    def start(self, told=True):
        """Our tor, with new signing keys and a new control connection; `told`: that was there soon enough."""
        self.life += "1"
        self.shown = None
        self.known = forgotten(self.known)
        if told:
            self.hear(Created(SHOWN), Created(HIDDEN))

    def hear(self, *events):
        for event in events:
            self.known = hear(self.known, event)

    def publish(self, *directories, tor="ours", told=True):
        """`told`: our tor says so, and somebody listens."""
        self.now += 1
        for key in (SHOWN, HIDDEN):
            signed = f"{tor}{self.life if tor == 'ours' else ''}{key}".encode()
            made = Descriptor(key, signed, self.now)
            if tor == "ours" and key == SHOWN:
                self.shown = made
            for directory in directories:
                self.held[directory, key] = made
                if tor == "ours" and told:
                    self.hear(Sent(directory, key))
        if tor == "ours" and told:
            self.hear(*(Taken(directory) for directory in directories for _ in range(2)))

    def ask(self, directory=None, asked=None):
        """Put the question where it is to be put, or to the directory that a client drew."""
        directory = directory or where(self.known) or A
        found = self.held.get((directory, self.asked_for))
        answer = Answer(directory, self.asked_for, found)
        self.known, verdict = judged(self.known, asked or self.known, answer, self.shown)
        return verdict


@pytest.fixture(params=[SHOWN, HIDDEN], ids=["first half", "second half"])
def play(request):
    """Our tor has started, in either half of a period."""
    play = Play(asked_for=request.param)
    play.start()
    return play


def test_ours_is_known_once_a_directory_took_it_and_anothers_is_told_from_then_on(play):
    assert where(play.known) == ""
    play.publish(A, B)
    assert where(play.known) in (A, B)
    assert play.ask() is OURS
    assert to_learn(play.known) is None
    assert where(play.known) == ""
    play.publish(A, B)
    assert play.ask(B) is OURS
    play.publish(B, tor="other")
    assert play.ask(A) is OURS
    assert play.ask(B) is ANOTHERS
    play.publish(A, B)
    assert play.ask(B) is OURS  # it was, and the alarm is on for three hours


@pytest.mark.parametrize("told", [True, False])
def test_what_was_published_before_a_restart_is_not_anothers(play, told):
    play.publish(A, B)
    assert play.ask() is OURS
    play.start(told)
    assert play.ask(A) is UNKNOWN
    play.publish(B)
    assert play.ask(A) is not ANOTHERS
    assert play.ask(B) is OURS
    assert play.ask(A) is OURS  # an old one, with a lower number
    play.publish(A, tor="other")
    assert play.ask(A) is ANOTHERS


def test_a_service_that_tor_made_anew_has_new_keys(play):
    play.publish(A)
    assert play.ask() is OURS
    play.life += "1"
    play.hear(Created(SHOWN), Created(HIDDEN))
    play.publish(A)
    assert play.ask() is OURS


def test_after_a_restart_of_lntor_the_second_half_is_known_again_when_tor_publishes(play):
    play.publish(A, B)
    play.known = Ours()
    assert play.ask(A) is (OURS if play.asked_for == SHOWN else UNKNOWN)
    play.publish(A, tor="other")
    assert play.ask(A) is (ANOTHERS if play.asked_for == SHOWN else UNKNOWN)
    play.publish(A, B)
    assert play.ask() is OURS
    play.publish(A, tor="other")
    assert play.ask(A) is ANOTHERS


def test_anothers_taken_for_ours_is_told_by_ours_once_that_is_published_anew():
    play = Play(asked_for=HIDDEN)
    play.start()
    play.publish(A, B)
    play.publish(A, B, tor="other")  # before anybody asked
    assert play.ask() is OURS
    play.publish(A, B, tor="other")
    assert play.ask() is OURS
    play.publish(A, B)
    assert play.ask() is ANOTHERS


def test_the_next_period_is_learned_from_directories_that_took_it():
    play = Play(asked_for=SHOWN)
    play.start()
    play.publish(A, B)
    assert play.ask() is OURS
    assert to_learn(play.known) is None  # clients do not ask for the other one yet
    play.asked_for = HIDDEN
    assert play.ask(A) is OURS
    play.publish(A, tor="other")
    assert play.ask(A) is ANOTHERS


def test_a_directory_that_does_not_keep_the_period_asked_for_leads_to_one_that_does():
    play = Play(asked_for=HIDDEN)
    play.hear(Created(SHOWN), Sent(A, SHOWN), Taken(A))
    assert where(play.known) == A
    assert play.ask() is UNKNOWN
    assert to_learn(play.known) is None
    play.held[B, HIDDEN] = Descriptor(HIDDEN, b"s", 1)
    play.hear(Sent(B, HIDDEN), Taken(B))
    assert where(play.known) == B
    assert play.ask() is OURS


def test_a_directory_that_has_lost_it_is_asked_once():
    play = Play(asked_for=HIDDEN)
    play.start()
    play.publish(A, B)
    first = where(play.known)
    del play.held[first, HIDDEN]
    assert play.ask() is UNKNOWN
    assert {first, where(play.known)} == {A, B}
    assert play.ask() is OURS


def test_of_two_that_a_directory_was_sent_one_answer_may_be_either():
    known = hear(hear(Ours(), Sent(A, SHOWN)), Sent(A, HIDDEN))
    once = hear(known, Taken(A))
    assert to_learn(once) is None
    assert to_learn(hear(once, Taken(A))) is not None
    refused = hear(once, NotTaken(A))
    assert to_learn(hear(refused, Taken(A))) is None
    anew = hear(hear(once, Sent(A, SHOWN)), Sent(A, HIDDEN))
    assert to_learn(hear(anew, Taken(A))) is None
    assert to_learn(hear(hear(anew, Taken(A)), Taken(A))) is not None


def test_what_a_directory_took_before_it_was_made_anew_is_not_counted():
    known = Ours()
    for event in (Sent(A, HIDDEN), Created(HIDDEN), Taken(A)):
        known = hear(known, event)
    assert to_learn(known) is None


def test_an_answer_teaches_nothing_where_the_directory_had_not_taken_ours_when_it_was_asked():
    play = Play(asked_for=HIDDEN)
    play.publish(A)
    play.start()
    asked = play.known
    play.hear(Sent(A, HIDDEN), Taken(A))
    assert play.ask(A, asked) is UNKNOWN
    assert to_learn(play.known) is not None


def test_an_answer_from_before_a_restart_is_void():
    play = Play(asked_for=HIDDEN)
    play.start()
    play.publish(A)
    asked = play.known
    play.start()
    assert play.ask(A, asked) is UNKNOWN


def test_what_is_remembered_is_bounded():
    known = Ours()
    for number in range(200):
        key, directory = number.to_bytes(32), f"{number:040X}"
        for event in (Created(key), Sent(directory, key), Taken(directory), Sent(directory, SHOWN)):
            known = hear(known, event)
    assert len(known.periods) == MAX_PERIODS
    assert len(known.rounds) == MAX_ROUNDS
    for number in range(200):
        known = hear(hear(known, Sent(f"{number:040X}", HIDDEN)), Taken(f"{number:040X}"))
    for number in range(200):
        known = hear(hear(known, Sent(f"D{number:039X}", HIDDEN)), Taken(f"D{number:039X}"))
    assert max(len(each.takers) for each in known.periods) == MAX_TAKERS


DIRECTORIES = (A, B, "C" * 40)
places = st.sets(st.sampled_from(DIRECTORIES), min_size=1)
our_doings = st.one_of(
    st.tuples(st.just("publish"), places, st.booleans()),
    st.tuples(st.just("ask"), st.sampled_from((None, *DIRECTORIES))),
    st.tuples(st.just("start"), st.booleans()),
    st.tuples(st.just("cut")),
    st.tuples(st.just("half"), st.sampled_from((SHOWN, HIDDEN))),
)
other_doings = st.tuples(st.just("other"), places)


def do(play, doing):
    match doing:
        case ("publish", directories, told):
            play.publish(*directories, told=told)
        case ("other", directories):
            play.publish(*directories, tor="other")
        case ("ask", directory):
            return play.ask(directory)
        case ("start", told):
            play.start(told)
        case ("cut",):
            play.known = forgotten(play.known)
        case ("half", key):
            play.asked_for = key
    return UNKNOWN


@given(st.lists(our_doings, max_size=30))
def test_alone_a_tor_is_never_told_of_another(doings):
    play = Play()
    play.start()
    assert ANOTHERS not in [do(play, each) for each in doings]


@given(st.lists(st.one_of(our_doings, other_doings), max_size=30), st.sampled_from((SHOWN, HIDDEN)))
def test_whatever_happened_two_tors_that_publish_in_turn_are_told(doings, asked_for):
    play = Play()
    play.start()
    for each in doings:
        do(play, each)
    play.asked_for = asked_for
    verdicts = []
    for tor in ("ours", "other", "ours"):
        play.publish(*DIRECTORIES, tor=tor)
        verdicts += [play.ask(), play.ask(A)]
    assert ANOTHERS in verdicts
