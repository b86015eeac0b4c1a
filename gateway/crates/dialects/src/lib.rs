//! What requests and answers look like in each API dialect.
//!
//! Owns: the scan of request bodies, the splice of what must change in them, the observer of answers, the shape of errors.
//! Promises: a body that is let through reads the same for every JSON parser as for us (duplicates, escaped keys, depth, trailing bytes are
//! refused); bytes pass untouched but for what we spliced in or take out; usage is the engine's own numbers.
//! Needs: nothing of ours, no I/O.

pub mod openai;
