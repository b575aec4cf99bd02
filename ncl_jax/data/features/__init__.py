"""Features of a frozen backbone: computed once, kept in the user's cache."""
