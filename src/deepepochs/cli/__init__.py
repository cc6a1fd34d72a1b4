"""The command line: ``deepepochs demo``, ``runs`` and ``report``."""
