"""What a broker should do, tried: each module one side of it, each trial a row of a table."""
