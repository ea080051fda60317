"""The doctor's checks, one module for each topic: each yields findings and changes nothing."""
