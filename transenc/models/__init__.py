"""Model families: the scorers that can be trained, and the door through which a PLM comes in."""
