"""What a switch logs: EndDeviceEventType codes of IEC 61968-9 (type 3: electric meter)."""

from __future__ import annotations

from typing import Final

from amistack.model import EndDeviceEventType

OPENED: Final = EndDeviceEventType(3, 31, 0, 68)  # RCDSwitch, n/a, Disconnected
CLOSED: Final = EndDeviceEventType(3, 31, 0, 42)  # RCDSwitch, n/a, Connected
ARMED: Final = EndDeviceEventType(3, 31, 0, 11)  # RCDSwitch, n/a, ArmedForClosure
OPENING_FAILED: Final = EndDeviceEventType(3, 31, 0, 84)  # RCDSwitch, n/a, DisconnectFailed
CLOSING_FAILED: Final = EndDeviceEventType(3, 31, 0, 67)  # RCDSwitch, n/a, ConnectFailed
NOT_ARMED: Final = EndDeviceEventType(3, 31, 0, 290)  # RCDSwitch, n/a, NotArmed
REFUSED: Final = EndDeviceEventType(3, 31, 1, 161)  # RCDSwitch, Access, Disallowed
TAMPERED: Final = EndDeviceEventType(3, 31, 38, 257)  # RCDSwitch, Voltage, TamperDetected
TAMPERING_OVER: Final = EndDeviceEventType(3, 31, 38, 291)  # RCDSwitch, Voltage, TamperCleared
RELAY_LOST: Final = EndDeviceEventType(3, 31, 91, 47)  # RCDSwitch, Relay, LossDetected
LIMIT_CHANGED: Final = EndDeviceEventType(3, 15, 139, 296)  # LoadControl, SupplyCapacityLimit, ...
LIMIT_EXCEEDED: Final = EndDeviceEventType(3, 15, 139, 139)  # ..., Exceeded
