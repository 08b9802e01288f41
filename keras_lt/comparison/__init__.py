"""Several runs side by side: done one after the other, as tables, as figures, and what their differences are worth."""
