//! The agent's end of a link: an rpc client on a stream that is already open.
//!
//! In: a byte stream. Out: an [`AgentLink`]. Never: a second connection (the connector gives its
//! stream once).

use super::severable::Severable;
use super::{AgentLink, Link, LinkError, QUEUE_LENGTH};
use crate::MESSAGE_BYTES_MAX;
use crate::v1::fleet_client::FleetClient;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

/// Speaks as an agent on `io`.
///
/// # Errors
/// [`LinkError::Protocol`] when the peer does not answer the rpc.
pub async fn agent_link<IO>(io: IO) -> Result<AgentLink, LinkError>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let protocol = |e: &dyn std::error::Error| LinkError::Protocol(chain(e));
    let (cut, gone) = (CancellationToken::new(), CancellationToken::new());
    let mut once = Some(TokioIo::new(Severable::new(io, &cut, &gone)));
    let connector = tower::service_fn(move |_| {
        let io = once
            .take()
            .ok_or_else(|| std::io::Error::other("the stream has ended"));
        async move { io }
    });
    // The address is a name for the HTTP/2 authority only; nothing is resolved or dialled.
    let channel = Endpoint::from_static("http://fleetflame.invalid")
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .connect_with_connector(connector)
        .await
        .map_err(|e| protocol(&e))?;
    let mut client = FleetClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (tx, outgoing) = mpsc::channel(QUEUE_LENGTH);
    let answer = client
        .attach(ReceiverStream::new(outgoing))
        .await
        .map_err(|e| protocol(&e))?;
    let mut stream = answer.into_inner();
    let (incoming, rx) = mpsc::channel(QUEUE_LENGTH);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // The client lives as long as this task: dropping the link closes the connection.
        let _client = client;
        while let Ok(Some(message)) = stream.message().await {
            if incoming.send(message).await.is_err() {
                break;
            }
        }
    });
    Ok(Link {
        tx,
        rx,
        tasks,
        cut: cut.drop_guard(),
    })
}

/// An error with everything that caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        at = cause.source();
    }
    text
}
