//! Parsing: what is accepted means what it says; what is not is named.
