"""CoAP (RFC 7252): messages, options and the endpoint machine of a socket."""
