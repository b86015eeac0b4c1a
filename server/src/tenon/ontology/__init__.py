"""The ontology: a company's business data as typed objects, read through one SQL statement, changed only by governed actions."""
