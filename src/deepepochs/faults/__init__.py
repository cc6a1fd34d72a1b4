"""What goes wrong in a pass, and how it is told in the words of the user.

``explain`` begins where a step has raised: ``scene`` looks which call failed and with what, and
``losses``, ``layers``, ``calls`` and ``backward`` each know faults of one kind. ``first_batch``
tells what raises nothing, ``not_finite`` where a NaN comes from, ``returned`` what a step must
not return.
"""
