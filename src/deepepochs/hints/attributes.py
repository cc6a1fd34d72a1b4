"""The error for an attribute that a trainer or a task does not have."""

from __future__ import annotations

from .near import did_you_mean

# What was said, by class and name: a step may look for an attribute with every mini-batch.
_said: dict[tuple[str, str], str | None] = {}


def missing_attribute(thing: object, name: str) -> AttributeError:
    """Make the error for a missing attribute, with what may be meant by its name."""
    kind = type(thing).__name__
    text = f"{kind!r} object has no attribute {name!r}"
    if name.startswith("_"):  # what copy, pickle and notebooks look for
        return AttributeError(text, name=name, obj=thing)
    first = getattr(type(thing), "_set_by_init", "")
    if first and first not in thing.__dict__:
        text += (
            f": {kind}.__init__ has not called super().__init__ yet. Call "
            "super().__init__(model, loss, opt, ...) in it, before anything else."
        )
        return AttributeError(text, name=name, obj=None)
    if (kind, name) not in _said:
        _said[kind, name] = _advice(thing, name)
    advice = _said[kind, name]
    if advice is None:
        return AttributeError(text, name=name, obj=thing)
    # Without the object Python adds no "Did you mean" of its own, which notebooks do not show.
    return AttributeError(f"{text}. {advice}", name=name, obj=None)


def _advice(thing: object, name: str) -> str | None:
    from .names import advice_on_attribute

    return advice_on_attribute(name) or did_you_mean(name, dir(thing), 0.7) or None
