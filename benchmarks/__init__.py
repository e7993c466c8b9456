"""Each claim about speed as a script that measures transenc and what one would otherwise use, in turn, in one run."""
