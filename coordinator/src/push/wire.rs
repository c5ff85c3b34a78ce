//! The messages and services of the stores, generated from `coordinator/wire/*.proto`, where their meaning stands. In:
//! nothing. Out: types. Never: a field that the stores do not have.

/// Pyroscope's `push.v1`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    reason = "generated; documented in the proto file"
)]
pub mod pyroscope {
    tonic::include_proto!("push.v1");
}

/// Parca's `parca.profilestore.v1alpha1`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    reason = "generated; documented in the proto file"
)]
pub mod parca {
    tonic::include_proto!("parca.profilestore.v1alpha1");
}
