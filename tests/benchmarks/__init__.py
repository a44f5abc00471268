"""What a message costs in memory, held against recorded figures; what importing the package costs."""
