"""The hinge flow from event to event, where every piece is a closed form (12.1)."""
