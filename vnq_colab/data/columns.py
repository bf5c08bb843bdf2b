"""The columns of a price table: prices in VND per share, volume in shares."""

PRICES = ("open", "high", "low", "close")
NEEDED = ("symbol", "date", *PRICES, "volume")
OPTIONAL = ("raw_close", "exchange")
