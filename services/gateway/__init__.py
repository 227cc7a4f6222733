"""The gateway: text in, a stream of text out. It holds every request's truth until the client has it."""
