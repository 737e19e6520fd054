"""Random faults over many seeds, and the smallest scenario that still fails."""
