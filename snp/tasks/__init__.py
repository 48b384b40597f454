"""What the models are trained for and how they are judged: losses and evaluators."""
