"""What can go wrong between an operator, a Tor daemon and us: what a person must mend, and what may mend itself."""


class Refused(Exception):  # noqa: N818 - the answer to our own command
    """A person has to change something: the text names it and the remedy. Trying again changes nothing."""


class Unavailable(Exception):  # noqa: N818 - a state of the world, not a fault of ours
    """It cannot be done now, and may be a moment later: the text says what is awaited."""
