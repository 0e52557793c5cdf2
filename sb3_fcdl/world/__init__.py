"""What is learned or known of an environment: variables, dynamics, reward and end of an episode."""
