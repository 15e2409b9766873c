"""Where entries, generations and holders are kept: one contract (`base`), two backends."""
