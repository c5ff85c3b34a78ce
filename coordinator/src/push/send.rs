//! One attempt to hand a parcel to a store: gRPC over HTTP/2, or `/ingest` over HTTP/1 where Pyroscope does not know it.
//!
//! In: a target, a parcel. Out: accepted, or why not and whether it is worth another attempt. Never: another attempt by
//! itself, or a credential in what is said.

use super::link::{Dialler, Http};
use super::wire::{parca, pyroscope};
use super::{Parcel, Store, Target};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::http::{HeaderValue, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use parca::profile_store_service_client::ProfileStoreServiceClient;
use pyroscope::pusher_service_client::PusherServiceClient;
use std::error::Error;
use std::fmt::Write as _;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Most of a server's words that are kept.
const SAID_BYTES_MAX: usize = 4_096;

/// Why a parcel was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The store or the way to it failed; the same may be accepted later.
    Again(String),
    /// The store does not want it; the same will not be accepted later.
    Never {
        /// What it said.
        said: String,
        /// What to do.
        remedy: &'static str,
        /// It would say the same of every other parcel.
        all: bool,
    },
}

/// What goes into the headers of every request.
#[derive(Clone, Default)]
pub struct Headers {
    /// `Authorization`; marked as sensitive.
    pub authorization: Option<HeaderValue>,
    /// `X-Scope-OrgID`: whose profiles they are, where a Pyroscope keeps those of many.
    pub tenant: Option<HeaderValue>,
}

/// How the store wants it, once that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// gRPC.
    Rpc,
    /// `POST /ingest`.
    Ingest,
}

/// See the module.
pub struct Sender {
    /// Where to.
    pub target: Target,
    dialler: Dialler,
    headers: Headers,
    way: Option<Way>,
    channel: Option<Channel>,
}

impl Sender {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(target: Target, dialler: Dialler, headers: Headers) -> Self {
        Self {
            target,
            dialler,
            headers,
            way: None,
            channel: None,
        }
    }

    /// The way by which something was accepted.
    #[must_use]
    pub fn way(&self) -> Option<Way> {
        self.way
    }

    /// Forgets the connection, which may be in the middle of something.
    pub fn hang_up(&mut self) {
        self.channel = None;
    }

    /// Tries once, without a limit of time.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn attempt(&mut self, parcel: &Parcel) -> Result<(), Refusal> {
        let way = match self.way {
            Some(way) => way,
            None => self.find_way().await?,
        };
        if way == Way::Rpc {
            match self.call(parcel).await {
                Ok(()) => {
                    self.way = Some(Way::Rpc);
                    return Ok(());
                }
                Err(status) if is_unknown(&status) && self.target.store == Store::Pyroscope => {}
                Err(status) => {
                    self.hang_up();
                    return Err(refusal(&status));
                }
            }
        }
        let accepted = self.ingest(parcel).await;
        if accepted.is_ok() {
            self.way = Some(Way::Ingest);
        }
        accepted
    }

    async fn find_way(&self) -> Result<Way, Refusal> {
        match (self.dialler.speaks().await, self.target.store) {
            (Ok(Http::Two), _) => Ok(Way::Rpc),
            (Ok(Http::One), Store::Pyroscope) => Ok(Way::Ingest),
            (Ok(Http::One), Store::Parca) => Err(Refusal::Never {
                said: "it does not speak HTTP/2, which gRPC needs".into(),
                remedy: "give the address of Parca itself, or of a proxy that passes gRPC on",
                all: true,
            }),
            (Err(error), _) => Err(unreached(&error)),
        }
    }

    async fn call(&mut self, parcel: &Parcel) -> Result<(), Status> {
        let channel = self.channel()?;
        let origin = format!("{}{}", self.base(), self.target.prefix);
        let origin: Uri = origin
            .parse()
            .map_err(|e| Status::invalid_argument(format!("{e}")))?;
        let labels = parcel.labels.iter();
        match self.target.store {
            Store::Pyroscope => {
                let labels = labels.map(|(name, value)| pyroscope::LabelPair {
                    name: name.clone(),
                    value: value.clone(),
                });
                let sample = pyroscope::RawSample {
                    raw_profile: parcel.payload.clone(),
                    id: parcel.id(),
                };
                let series = pyroscope::Series {
                    labels: labels.collect(),
                    samples: vec![sample],
                };
                let request = pyroscope::PushRequest {
                    series: vec![series],
                };
                let mut client = PusherServiceClient::with_origin(channel, origin);
                client.push(self.request(request)).await.map(|_| ())
            }
            Store::Parca => {
                let labels = labels.map(|(name, value)| parca::Label {
                    name: name.clone(),
                    value: value.clone(),
                });
                let sample = parca::RawSample {
                    raw_profile: parcel.payload.clone(),
                };
                let series = parca::Series {
                    labels: Some(parca::LabelSet {
                        labels: labels.collect(),
                    }),
                    samples: vec![sample],
                };
                // Names are in the profile: Parca need not look for the files.
                let request = parca::WriteRawRequest {
                    series: vec![series],
                    normalized: false,
                };
                let mut client = ProfileStoreServiceClient::with_origin(channel, origin);
                client.write_raw(self.request(request)).await.map(|_| ())
            }
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let mut headers = std::mem::take(request.metadata_mut()).into_headers();
        for (name, value) in self.named_headers() {
            headers.insert(name, value.clone());
        }
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        request
    }

    fn named_headers(&self) -> impl Iterator<Item = (&'static str, &HeaderValue)> {
        let authorization = self
            .headers
            .authorization
            .iter()
            .map(|v| ("authorization", v));
        authorization.chain(self.headers.tenant.iter().map(|v| ("x-scope-orgid", v)))
    }

    fn base(&self) -> String {
        let scheme = if self.target.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.target.authority())
    }

    fn channel(&mut self) -> Result<Channel, Status> {
        if let Some(open) = &self.channel {
            return Ok(open.clone());
        }
        let wrong = |e: tonic::transport::Error| Status::invalid_argument(chain(&e));
        let origin: Uri = self
            .base()
            .parse()
            .map_err(|e| Status::invalid_argument(format!("{e}")))?;
        let dialler = self.dialler.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let dialler = dialler.clone();
            async move { dialler.stream(Http::Two).await.map(TokioIo::new) }
        });
        // The dialler does TLS; to the channel the stream is plain.
        let channel = Endpoint::from_shared(format!("http://{}", self.target.authority()))
            .map_err(wrong)?
            .origin(origin)
            .connect_with_connector_lazy(connector);
        self.channel = Some(channel.clone());
        Ok(channel)
    }

    /// The older way of Pyroscope (its server API, "/ingest").
    async fn ingest(&self, parcel: &Parcel) -> Result<(), Refusal> {
        let stream = self
            .dialler
            .stream(Http::One)
            .await
            .map_err(|e| unreached(&e))?;
        let broken = |e: hyper::Error| Refusal::Again(format!("/ingest: {}", chain(&e)));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request =
            hyper::Request::post(format!("{}/ingest?{}", self.target.prefix, query(parcel)))
                .header("host", self.target.authority())
                .header("content-type", "application/octet-stream");
        let request = self
            .named_headers()
            .fold(request, |r, (name, value)| r.header(name, value));
        let request = request.body(Full::new(Bytes::from(parcel.payload.clone())));
        let request = request.map_err(|e| Refusal::Never {
            said: format!("/ingest: {e}"),
            remedy: "check the labels",
            all: false,
        })?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), SAID_BYTES_MAX)
            .collect()
            .await;
        if status.is_success() {
            return Ok(());
        }
        let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).trim().to_owned());
        let said = format!("/ingest: {status}: {}", body.unwrap_or_default());
        Err(match status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Refusal::Again(said),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => never(said, CREDENTIALS, true),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => never(said, ADDRESS, true),
            StatusCode::PAYLOAD_TOO_LARGE => never(said, LIMITS, false),
            _ => never(said, ASK, false),
        })
    }
}

const CREDENTIALS: &str = "give credentials that may write by FLEETFLAME_PUSH_AUTH or --auth-file, and --tenant where the \
                           store has many";
const ADDRESS: &str = "check that the address is that of the store named, and of its server";
const LIMITS: &str = "raise the store's limits for profiles, or push shorter captures";
const ASK: &str = "look at the store's log; its own words stand above";

fn never(said: String, remedy: &'static str, all: bool) -> Refusal {
    Refusal::Never { said, remedy, all }
}

fn unreached(error: &std::io::Error) -> Refusal {
    let tls = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    let said = chain(error);
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => never(
            said,
            "give the authority that signed its certificate by --ca",
            true,
        ),
        _ => Refusal::Again(said),
    }
}

/// `name{label=value,…}` and the time, as `/ingest` has them. `name` becomes `service_name`.
fn query(parcel: &Parcel) -> String {
    // Its parser ends a value at the first of these two, and knows no quotes.
    let plain = |text: &str| text.replace([',', '}', '{', '='], "_");
    let mut name = plain(
        parcel
            .labels
            .get("service_name")
            .map_or("fleetflame", String::as_str),
    );
    let own = ["service_name", "__name__"];
    let labels = parcel
        .labels
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()));
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={}", plain(value)))
        .collect();
    let _ = write!(name, "{{{}}}", labels.join(","));
    // Whole seconds: it tells units apart by the number of digits.
    let from_s = parcel.taken.from_unix_ns / 1_000_000_000;
    let until_s = from_s + parcel.taken.duration_ns.div_ceil(1_000_000_000).max(1);
    format!(
        "name={}&from={from_s}&until={until_s}&sampleRate={}&format=pprof&spyName=fleetflame",
        percent_encoded(&name),
        parcel.sample_hz
    )
}

/// All but letters, digits and `-._~` (RFC 3986, unreserved) as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The server is there and does not know the method, or not gRPC.
fn is_unknown(status: &Status) -> bool {
    let http_415 = || status.message().contains("HTTP status code 415");
    status.code() == Code::Unimplemented || (status.code() == Code::Unknown && http_415())
}

/// What a status means for the parcel.
fn refusal(status: &Status) -> Refusal {
    let mut said = format!("{:?}: {}", status.code(), status.message());
    if let Some(source) = status.source() {
        let _ = write!(said, ": {}", chain(source));
    }
    // What is said by our own side of a broken connection has a cause, or is one of these.
    let broken = status.source().is_some()
        || status.message().starts_with("h2 protocol error")
        || status
            .message()
            .starts_with("protocol error: missing grpc-status")
        || status.code() == Code::Cancelled;
    let invalid = certificate_error(status.source());
    match status.code() {
        _ if invalid => never(
            said,
            "give the authority that signed its certificate by --ca",
            true,
        ),
        Code::Unauthenticated | Code::PermissionDenied => never(said, CREDENTIALS, true),
        Code::Unimplemented => never(said, ADDRESS, true),
        // Too many requests are a 4xx in disguise: what limits a sender does not want it to insist.
        Code::Unavailable if status.message().contains("HTTP status code 429") => {
            never(said, LIMITS, true)
        }
        Code::Unavailable | Code::DeadlineExceeded => Refusal::Again(said),
        _ if broken => Refusal::Again(said),
        Code::ResourceExhausted => never(said, LIMITS, false),
        _ => never(said, ASK, false),
    }
}

fn certificate_error(source: Option<&(dyn Error + 'static)>) -> bool {
    let mut at = source;
    while let Some(error) = at {
        let io = error
            .downcast_ref::<std::io::Error>()
            .and_then(|e| e.get_ref());
        if io
            .is_some_and(|e| matches!(e.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
        {
            return true;
        }
        at = error.source();
    }
    false
}

/// An error with everything that caused it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let said = cause.to_string();
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        at = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::format::pprof::Taken;

    #[test]
    fn what_ingest_is_asked_can_be_read_by_its_parser() {
        let labels = [
            ("__name__", "process_cpu"),
            ("service_name", "nginx"),
            ("host", "kong-1"),
            ("role", "a,b}c"),
        ];
        let parcel = Parcel {
            host: "kong-1".into(),
            labels: labels.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
            payload: vec![],
            taken: Taken {
                from_unix_ns: 1_770_000_000_900_000_000,
                duration_ns: 30_000_000_000,
            },
            sample_hz: 99,
        };
        assert_eq!(
            query(&parcel),
            "name=nginx%7Bhost%3Dkong-1%2Crole%3Da_b_c%7D&from=1770000000&until=1770000030&sampleRate=99\
             &format=pprof&spyName=fleetflame"
        );
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let again = |status: Status| matches!(refusal(&status), Refusal::Again(_));
        assert!(again(Status::unavailable("down for maintenance")));
        assert!(again(Status::deadline_exceeded("slow")));
        assert!(again(Status::cancelled("the connection was closed")));
        assert!(!again(Status::invalid_argument("invalid label")));
        assert!(!again(Status::unauthenticated("no token")));
        assert!(!again(Status::resource_exhausted("too large")));
        let limited = "grpc-status header missing, mapped from HTTP status code 429";
        assert!(!again(Status::unavailable(limited)));
        let unsupported = "grpc-status header missing, mapped from HTTP status code 415";
        assert!(
            is_unknown(&Status::unknown(unsupported)) && is_unknown(&Status::unimplemented(""))
        );
        assert!(!is_unknown(&Status::unknown("a panic")));
    }
}
