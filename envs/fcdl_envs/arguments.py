"""Checks of what an environment is given."""


def check(valid: bool, name: str, value: object, allowed: str) -> None:
    """:raises ValueError: naming the argument, its value and what is allowed, unless ``valid``"""
    if not valid:
        raise ValueError(f"{name}={value!r} is not allowed; {name} must be {allowed}")
