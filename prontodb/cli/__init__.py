"""The command line: parse, call, print; nothing else reads argv and the environment, or prints."""
