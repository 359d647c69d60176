"""What the tree asks to be sent, and where a node stands in it."""

from __future__ import annotations

import enum


class Act(enum.Enum):
    """What the node shall send. All but the first four go to one neighbour."""

    DIO = "DIO to all"
    DIS = "DIS to all"
    DAO = "our parents are others"
    DAO_ASKED = "the root asks"
    DIO_TO = "DIO to a neighbour"
    REGISTER = "DIO that makes it our parent"
    LEAVE = "DIO that says we are its child no more"
    REFUSE = "DIO that says we do not take a child"
    ASK = "DIO that asks a child what it promises"
    POISON = "DIO with a rank without end, to a child"
    PROBE = "DIO that tries a link"


class State(enum.Enum):
    """Where the node stands.

    ::

        DETACHED --> JOINED     a parent acknowledged
        JOINED --> DETACHED     no parent is left that makes no loop
        ROOT                    a collector, for good
    """

    DETACHED = "detached"
    JOINED = "joined"
    ROOT = "root"
