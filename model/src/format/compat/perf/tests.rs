//! Tests against outputs of the real script.
