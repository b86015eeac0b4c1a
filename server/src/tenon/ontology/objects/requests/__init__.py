"""Requests: what a caller wrote, checked and bounded, as a query.

Owns: filters, orders, page sizes and the allowance that bounds a whole read; the catalogue that a caller sees; signatures of equal shapes.
Promises: what a caller may not see is refused exactly like what does not exist; every limit is refused by name with its number.
Needs: the slice's `contracts`, `errors`, `limits` and `visibility`.
"""
