"""What a meter shows to whoever stands before it, and the messages sent to it."""

from __future__ import annotations

from meterd.display.mailbox import Mailbox
from meterd.display.pages import pages
from meterd.display.resource import DisplayPart
from meterd.display.screen import Screen, Terminal, Turner
from meterd.display.view import Note, View, Viewer

__all__ = [
    "DisplayPart",
    "Mailbox",
    "Note",
    "Screen",
    "Terminal",
    "Turner",
    "View",
    "Viewer",
    "pages",
]
