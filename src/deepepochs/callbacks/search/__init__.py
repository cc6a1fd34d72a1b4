"""Callbacks for a search of hyper-parameters."""
