"""Looks for faults of a training before it is run: ``trainer.check(train_dl, val_dl)``."""
