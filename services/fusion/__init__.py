"""Fusion: the centre of the drafters' star. Turns draft plans into token trees."""
