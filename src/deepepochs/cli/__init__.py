"""The command line: ``deepepochs demo``, ``runs``, ``compare``."""
