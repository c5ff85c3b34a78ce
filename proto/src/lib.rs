//! THE WIRE: the one rpc between coordinator and agent.
//!
//! In: values of the model, and byte streams that somebody opened. Out: messages on a [`link`].
//! Never: a decision. Messages are told apart and converted here, and acted upon elsewhere.

pub mod convert;
pub mod link;
pub mod tls;

/// Generated from `fleetflame/v1/fleet.proto`, where the meaning of every field stands.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    reason = "generated; documented in the proto file"
)]
pub mod v1 {
    tonic::include_proto!("fleetflame.v1");
}

/// Version of the protocol in this crate.
pub const PROTOCOL: u32 = 1;

/// What an agent writes on a channel of SSH before its first byte of the rpc: whatever a login shell
/// or a banner has written stands before it.
pub const START_MARK: &[u8] = b"\n\0fleetflame-stdio/1\n";

/// Largest message that either side takes, in bytes. A batch is bounded by the agent's outbox and
/// lies far below.
pub const MESSAGE_BYTES_MAX: usize = 20 << 20;
