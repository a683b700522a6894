"""How many jobs have been submitted and wait for their commit."""


class Backlog:
    """Counted by `submit`, looked at by the door."""

    def __init__(self) -> None:
        self.jobs = 0
