"""Policy heads, training, evaluation and the policy node."""
