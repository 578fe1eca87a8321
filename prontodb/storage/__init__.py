"""The doors to the machine: SQLite connections, worker threads, file locks, files."""
