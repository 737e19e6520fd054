"""The three exception families of the node (house rule 5), each caught in exactly one place."""


class MalformedMessage(Exception):  # noqa: N818 - a fact about bytes, not a fault of ours
    """Bytes that are no valid message: answered with a warning, and the session ends."""


class PeerFault(Exception):  # noqa: N818 - names who is at fault
    """A well-formed message that the protocol forbids here: the channel or the session fails."""


class Refused(Exception):  # noqa: N818 - the answer to our own command
    """Our own command cannot be carried out; nothing has changed."""


class Misconfigured(Refused):
    """A field of the configuration does not fit what is there; the text begins with the field."""


class Ended(Refused):
    """What was running cannot go on; started again (a supervisor does that) it may."""
