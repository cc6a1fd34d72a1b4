"""Small tools of release 0.6 that old scripts import."""
