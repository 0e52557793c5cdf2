"""Pictures; everything in here needs matplotlib (extra ``plot``), and is imported where a picture is drawn."""
