"""A fleet of scripted devices: real connections and real messages, with nothing trained (`hidenseek loadtest`)."""
