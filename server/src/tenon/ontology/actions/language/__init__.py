"""The action type language: from a document to a checked action type, and from a caller's parameters to typed values.

Owns: the document's shape, parameters, a value's forms, the checking and compiling of CEL expressions. Promises: every problem of a document
is reported at once, each with its path; a property above a clearance does not exist for it. Needs: schema, kit.cel.
"""
