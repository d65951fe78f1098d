"""Drawing of garments and of what stands behind them."""
