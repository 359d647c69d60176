"""Every decoder and every machine, given input that nobody made on purpose."""
