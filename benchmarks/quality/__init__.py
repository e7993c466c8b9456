"""How good the models are that settings lead to, over seeds."""
