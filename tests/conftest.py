"""For all tests."""

from hypothesis import settings

# How long one example takes says more about the machine than about the code; pytest's own timeout ends what hangs.
settings.register_profile("lnsim", settings(), deadline=None)
settings.load_profile("lnsim")
