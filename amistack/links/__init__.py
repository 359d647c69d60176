"""Where machines meet asyncio: drivers that feed them and carry out what they ask for."""

from amistack.links.udp import UdpLink, open_udp

__all__ = ["UdpLink", "open_udp"]
