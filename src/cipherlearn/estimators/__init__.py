"""The classifier and the regressor. Nothing below imports them."""
