"""The HTTP door: JSON documents in and out, problems as RFC 9457 has them."""
