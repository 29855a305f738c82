"""From an impressions table to a Gavel model bundle."""
