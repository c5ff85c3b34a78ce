//! The coordinator's end of a link: an rpc server for exactly one stream that is already open.
//!
//! In: a byte stream. Out: a [`CoordinatorLink`] as soon as the agent has called. Never: a
//! listening socket, or a second agent on the same link.

use super::severable::Severable;
use super::{CoordinatorLink, Link, LinkError, QUEUE_LENGTH};
use crate::MESSAGE_BYTES_MAX;
use crate::v1::fleet_server::{Fleet, FleetServer};
use crate::v1::{FromAgent, FromCoordinator};
use std::pin::Pin;
use std::sync::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

type Outgoing = Pin<Box<dyn tokio_stream::Stream<Item = Result<FromCoordinator, Status>> + Send>>;

/// Answers one agent on `io`. Returns when the agent has opened its call.
///
/// # Errors
/// [`LinkError::Protocol`] when the peer speaks something else.
pub async fn coordinator_link<IO>(io: IO) -> Result<CoordinatorLink, LinkError>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (tx, outgoing) = mpsc::channel(QUEUE_LENGTH);
    let (incoming, rx) = mpsc::channel(QUEUE_LENGTH);
    let (called_tx, called) = oneshot::channel();
    let service = OneCall {
        ends: Mutex::new(Some(Ends {
            outgoing,
            incoming,
            called: called_tx,
        })),
    };
    let service = FleetServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // The incoming side never ends by itself: an ended one would shut the server down at once.
    let (cut, gone) = (CancellationToken::new(), CancellationToken::new());
    let io = Severable::new(io, &cut, &gone);
    let once = tokio_stream::once(Ok::<_, std::io::Error>(io)).chain(tokio_stream::pending());
    let mut tasks = JoinSet::new();
    let (ended_tx, ended) = oneshot::channel();
    tasks.spawn(async move {
        let served = Server::builder()
            .max_concurrent_streams(4)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(2 << 20)
            .max_frame_size(Some(1 << 18))
            .add_service(service)
            .serve_with_incoming(once)
            .await;
        let _ = ended_tx.send(
            served
                .err()
                .map_or_else(|| "it ended".into(), |e| e.to_string()),
        );
    });
    tokio::select! {
        called = called => match called {
            Ok(()) => Ok(Link { tx, rx, tasks, cut: cut.drop_guard() }),
            Err(_) => Err(LinkError::Closed),
        },
        () = gone.cancelled() => Err(LinkError::Protocol("no call was made on it".into())),
        why = ended => Err(LinkError::Protocol(why.unwrap_or_default())),
    }
}

struct Ends {
    outgoing: mpsc::Receiver<FromCoordinator>,
    incoming: mpsc::Sender<FromAgent>,
    called: oneshot::Sender<()>,
}

struct OneCall {
    ends: Mutex<Option<Ends>>,
}

#[tonic::async_trait]
impl Fleet for OneCall {
    type AttachStream = Outgoing;

    async fn attach(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Outgoing>, Status> {
        let ends = self.ends.lock().ok().and_then(|mut ends| ends.take());
        let Some(Ends {
            outgoing,
            incoming,
            called,
        }) = ends
        else {
            return Err(Status::resource_exhausted("one call a connection"));
        };
        let mut stream = request.into_inner();
        let (pump_guard, mut dropped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    _ = &mut dropped => break,
                    message = stream.message() => message,
                };
                let Ok(Some(message)) = message else { break };
                if incoming.send(message).await.is_err() {
                    break;
                }
            }
        });
        let _ = called.send(());
        // The guard lives in the answer's stream: when the connection goes, so does the pump.
        let answer = ReceiverStream::new(outgoing).map(move |message| {
            let _ = &pump_guard;
            Ok(message)
        });
        Ok(Response::new(Box::pin(answer)))
    }
}
