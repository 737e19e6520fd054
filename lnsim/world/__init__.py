"""World mode: the same processes, unchanged, in one real process on virtual time, with everything drawn from one seed."""
