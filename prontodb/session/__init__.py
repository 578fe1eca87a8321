"""Sessions: taken and ended (`door`), those of one manager (`live`), those of all processes (`book`)."""
