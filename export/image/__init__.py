"""SD cards: a stock image customised without root or loop devices, written to a card and checked."""
