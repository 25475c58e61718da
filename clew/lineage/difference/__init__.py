"""What differs between two runs: steps aligned by node and by what they were asked, and where the runs parted."""
