"""The nouns of the head-end: plain frozen values, no I/O, nothing imported but the stack's own."""
