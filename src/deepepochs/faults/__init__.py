"""Explains what goes wrong in a pass, in the words of the user.

``explain`` is called when a step has raised: ``scene`` finds the call that failed, and
``losses``, ``layers``, ``calls`` and ``backward`` each know faults of one kind. ``first_batch``
finds what raises nothing, ``not_finite`` where a NaN comes from; ``returned`` checks what a step
returns, and ``loading`` explains an error of a DataLoader.
"""
