"""The device: joins a federation, trains sign masks on its own data, sends them. Needs `wire` only."""
