"""Who the peer is, and messages that nobody else can read or forge: EDHOC and OSCORE."""
