"""How fast the receiver is, side by side with a floor and with a plain server: ``make bench``."""
