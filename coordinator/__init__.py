"""The side that prunes, runs rounds and reports. torch only inside prune and export, imported when used."""
