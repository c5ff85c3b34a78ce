//! Examples that work. In: nothing. Out: commented YAML. Never: a key that the reader refuses (a
//! test reads them).

/// A job spec with everything that can be said.
pub const CAPTURE: &str = include_str!("example-capture.yaml");

/// A host's policy: what its agent may do, whatever it is told.
pub const POLICY: &str = include_str!("example-policy.yaml");

/// An inventory: hosts with labels.
pub const FLEET: &str = include_str!("example-fleet.yaml");
