"""Pictures; everything in here needs matplotlib (extra ``plot``), and is imported where a picture is drawn."""

from sb3_fcdl.extras import needs

with needs("matplotlib", "plot"):
    import matplotlib  # noqa: F401
