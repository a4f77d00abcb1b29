"""Which directions of a user's own data are features, how fast each is learnt, and which of them starve."""
