"""The sequencer: it gives entries their places in the tree, signs the tree and publishes it.

Owns: the order of entries, the stored trees and the published tiles. Promises: a signed tree never shrinks or changes.
Needs: `log`, the slice's repository, the login `sequencer`.
"""
