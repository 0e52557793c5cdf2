"""Learning a world model from recorded transitions."""
