"""What the labels tell of a garment."""

from typing import NamedTuple


class Traits(NamedTuple):
    """The labels of one picture. A sleeve that covers the elbow is long."""

    striped: bool
    long_sleeve: bool
    collar: bool
    logo: bool
